//! What can go wrong with calls and with deliveries, as a script.

use std::time::Duration;

use super::call::Operation;
use crate::script::{FaultBuilder, Script};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `ThrottlingException`; nothing is done.
    Throttle,
    /// 500 `InternalServerError`; nothing is done.
    InternalError,
    /// 400 `AccessDeniedException`; nothing is done.
    AccessDenied,
    /// The call is carried out, but the connection is dropped instead of an answer.
    LoseReply,
}

/// What happens to a command on its way to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is delivered twice: the script runs again when it has ended. The first run is what the service reports.
    Twice,
    /// It is delivered twice at the same time.
    TwiceAtOnce,
    /// It takes this long.
    Delay(Duration),
    /// It waits for `Ssm::release`.
    Hold,
    /// It waits until a newer command to the same host has ended.
    AfterNewer,
    /// It never arrives: `DeliveryTimedOut` in the end.
    Never,
    /// The agent cannot be reached: `Undeliverable` at once.
    Undeliverable,
}

/// The script of a stand-in's faults.
#[derive(Debug, Default)]
pub struct Faults {
    pub(super) calls: Script<Operation, Effect>,
    pub(super) deliveries: Script<String, Delivery>,
}

impl Faults {
    /// Begins a fault for calls of one operation.
    pub fn on(&self, operation: Operation) -> FaultBuilder<'_, Operation, Effect> {
        self.calls.on(operation)
    }

    /// Begins a fault for deliveries to whatever host.
    pub fn on_delivery(&self) -> FaultBuilder<'_, String, Delivery> {
        self.deliveries.on_any()
    }

    /// Begins a fault for deliveries to one host.
    pub fn on_delivery_to(&self, instance_id: &str) -> FaultBuilder<'_, String, Delivery> {
        self.deliveries.on(instance_id)
    }

    /// Forgets every fault.
    pub fn clear(&self) {
        self.calls.clear();
        self.deliveries.clear();
    }

    /// The faults which have not (or not often enough) struck, in words.
    #[must_use]
    pub fn unfired(&self) -> Vec<String> {
        [self.calls.unfired(), self.deliveries.unfired()].concat()
    }
}
