//! S3's own clock, which a test may set wrong.

use std::sync::atomic::{AtomicI64, Ordering};

/// The clock behind `Date`, `Last-Modified` and the order of versions.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    skew_in_seconds: AtomicI64,
}

impl Clock {
    /// The time S3 believes it is.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        let now = jiff::Timestamp::now();
        now.checked_add(jiff::SignedDuration::from_secs(self.skew_in_seconds.load(Ordering::SeqCst)))
            .unwrap_or(now)
    }

    pub(crate) fn set_skew(&self, seconds: i64) {
        self.skew_in_seconds.store(seconds, Ordering::SeqCst);
    }
}

/// The form of HTTP's `Date` header.
pub(crate) fn http_date(time: jiff::Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_http_date_is_in_the_fixed_form_of_rfc_9110() {
        let time: jiff::Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn a_skewed_clock_is_off_by_the_skew() {
        let clock = Clock::default();
        clock.set_skew(-600);
        let behind = jiff::Timestamp::now().as_second() - clock.now().as_second();
        assert!((599..=601).contains(&behind), "{behind} s behind");
    }
}
