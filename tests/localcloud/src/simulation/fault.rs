//! What can happen to a call, and a plan of which calls it happens to.

use std::{fmt, str::FromStr};

/// What happens to one call of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Whoever calls dies before the call has its effect.
    CrashBefore,
    /// Whoever calls dies after the call had its effect.
    CrashAfter,
    /// The call has its effect, and the caller is told that nobody knows.
    ReplyLost,
    /// The call has its effect twice, and the caller gets the second answer.
    Twice,
    /// The call takes longer than any heartbeat, any function and any patience.
    Delayed,
    /// The caller is told that nobody knows, and the call has its effect only a while afterwards. For writes of documents; any other call is only lost.
    Late,
    /// The host is replaced at this moment: its processes and its disk are gone, and there is another one.
    HostReplaced,
}

impl Effect {
    /// Every effect.
    pub const ALL: [Self; 7] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::ReplyLost,
        Self::Twice,
        Self::Delayed,
        Self::Late,
        Self::HostReplaced,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::CrashBefore => "crash-before",
            Self::CrashAfter => "crash-after",
            Self::ReplyLost => "reply-lost",
            Self::Twice => "twice",
            Self::Delayed => "delayed",
            Self::Late => "late",
            Self::HostReplaced => "host-replaced",
        }
    }
}

/// Which calls are struck: their numbers in the order of happening, from 1. Prints as `12:reply-lost+40:host-replaced`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Plan(pub Vec<(usize, Effect)>);

impl Plan {
    /// What happens to a call.
    pub(super) fn at(&self, call: usize) -> Option<Effect> {
        self.0.iter().find(|(number, _)| *number == call).map(|(_, effect)| *effect)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (call, effect)) in self.0.iter().enumerate() {
            let joint = if index == 0 { "" } else { "+" };
            write!(f, "{joint}{call}:{}", effect.name())?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no plan as 12:reply-lost+40:host-replaced, or none");
        if text == "none" {
            return Ok(Self::default());
        }
        let fault = |part: &str| {
            let (call, name) = part.split_once(':')?;
            let effect = Effect::ALL.into_iter().find(|effect| effect.name() == name)?;
            Some((call.parse().ok()?, effect))
        };
        text.split('+').map(fault).collect::<Option<_>>().map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_prints_as_it_is_parsed() {
        for text in ["none", "3:twice", "12:reply-lost+40:host-replaced"] {
            assert_eq!(text.parse::<Plan>().unwrap().to_string(), text);
        }
        for text in ["", "3", "3:maybe", "x:twice"] {
            assert!(text.parse::<Plan>().is_err(), "{text}");
        }
    }
}
