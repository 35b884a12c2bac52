//! Where the service has its chance from: a seed. The same seed draws the same tokens, delays and UUIDs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::machine::{Supply, TaskToken};

/// Bytes of a token before it is written in base64: AWS's have several hundred characters.
const TOKEN_BYTES: usize = 480;

/// What every token of AWS begins with, as far as has been seen.
pub(super) const TOKEN_PREFIX: &str = "AAAA";

/// A sequence of draws.
#[derive(Debug, Clone)]
pub struct Draws {
    state: u64,
    shortest: bool,
}

impl Draws {
    /// The draws of a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed, shortest: false }
    }

    /// The same, but for delays: every one that is drawn between nothing and its full length (`JitterStrategy` `FULL`) is nothing, which is a draw like any
    /// other, and one that nobody has to wait for.
    #[must_use]
    pub fn without_delays(self) -> Self {
        Self { shortest: true, ..self }
    }

    /// Draws that nobody can foresee.
    #[must_use]
    pub fn random() -> Self {
        Self::seeded(uuid::Uuid::new_v4().as_u64_pair().0)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or_default()
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Supply for Draws {
    fn token(&mut self) -> TaskToken {
        let mut bytes = vec![0_u8; 3];
        while bytes.len() < TOKEN_BYTES {
            bytes.extend(self.next().to_be_bytes());
        }
        TaskToken::new(STANDARD.encode(bytes))
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    fn fraction(&mut self) -> f64 {
        if self.shortest {
            return 0.0;
        }
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
            .into_uuid()
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_again_and_never_the_same_twice() {
        let (mut one, mut other) = (Draws::seeded(7), Draws::seeded(7));
        let token = one.token();
        assert_eq!(token, other.token());
        assert_ne!(token, one.token());
        assert!(token.reveal().starts_with(TOKEN_PREFIX));
        assert!((1..=2048).contains(&token.reveal().len()));
        assert!((0.0..1.0).contains(&one.fraction()));
        assert_eq!(one.uuid().len(), 36);
        assert_ne!(Draws::random().token(), Draws::random().token());
        let mut eager = Draws::seeded(7).without_delays();
        assert_eq!((eager.token(), eager.fraction(), eager.fraction()), (token, 0.0, 0.0));
    }
}
