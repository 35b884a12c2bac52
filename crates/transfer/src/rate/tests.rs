use tokio::task::JoinSet;

use super::*;

const MB: u64 = 1_000_000;

/// Moves `total` bytes in `requests` requests at once; answers how long that took.
async fn moves(rate: &Rate, requests: u64, total: u64) -> Duration {
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..requests {
        let rate = rate.clone();
        running.spawn(async move {
            let mut left = usize::try_from(total / requests).unwrap();
            while left > 0 {
                let chunk = rate.chunk().min(left);
                rate.take(chunk).await;
                left -= chunk;
            }
        });
    }
    running.join_all().await;
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_over_time_however_many_requests_share_it() {
    for (limit, requests) in [(MB, 1), (MB, 72), (17 * MB, 2), (200 * MB, 20), (6_250 * MB, 70)] {
        let rate = Rate::new(Some(limit));
        let total = limit * 20;
        let took = moves(&rate, requests, total).await.as_secs_f64();
        let error = (total as f64 / took / limit as f64 - 1.0).abs();
        assert!(error < 0.01, "{limit} with {requests}: off by {error}");
        assert!(rate.moved() > total - requests && rate.moved() <= total);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_no_more_than_the_bucket_moves_at_once() {
    let rate = Rate::new(Some(10 * MB));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let begin = Instant::now();
    let chunk = rate.chunk();
    let mut at_once = 0;
    while begin.elapsed() == Duration::ZERO {
        rate.take(chunk).await;
        at_once += chunk;
    }
    // The bucket, the chunk that empties it, and the one that was waited for.
    let bucket = usize::try_from(10 * MB).unwrap() / 20;
    assert!(at_once >= bucket && at_once <= bucket + 2 * chunk, "{at_once}");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_follow_a_new_limit_at_once() {
    // A large chunk leaves a debt of 100 s, which is not waited for when the limit goes up, or away.
    for (raised, expected) in [(Some(100 * MB), 11.0), (None, 10.0)] {
        let rate = Rate::new(Some(MB));
        rate.take(100_000_000).await;
        let begin = Instant::now();
        let raising = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            rate.set(raised);
        };
        tokio::join!(rate.take(1), raising);
        let took = begin.elapsed().as_secs_f64();
        assert!((took - expected).abs() < 0.2, "{took} for {raised:?}");
    }
    // A lower one holds them back longer.
    let rate = Rate::new(Some(10 * MB));
    rate.take(100_000_000).await;
    rate.set(Some(MB));
    let begin = Instant::now();
    rate.take(1).await;
    assert!(begin.elapsed() > Duration::from_secs(90), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn everybody_gets_a_turn_and_whoever_goes_away_costs_nothing() {
    let rate = Rate::new(Some(LEAST_RATE));
    let longest = Arc::new(Mutex::new(Duration::ZERO));
    let mut running = JoinSet::new();
    for _ in 0..72 {
        let (rate, longest) = (rate.clone(), Arc::clone(&longest));
        running.spawn(async move {
            for _ in 0..5 {
                let begin = Instant::now();
                rate.take(rate.chunk()).await;
                let mut longest = longest.lock().unwrap();
                *longest = begin.elapsed().max(*longest);
            }
        });
    }
    running.join_all().await;
    // Far below the 20 s after which S3 closes a connection, even with every request of the fastest network at the lowest rate.
    assert!(*longest.lock().unwrap() < Duration::from_secs(2), "{longest:?}");

    let (begin, before) = (Instant::now(), rate.moved());
    for _ in 0..10 {
        let impatient = tokio::time::timeout(Duration::from_micros(10), rate.take(LARGEST_CHUNK));
        assert!(impatient.await.is_err());
    }
    rate.take(1).await;
    assert_eq!(rate.moved(), before + 1);
    assert!(begin.elapsed() < Duration::from_millis(50), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn few_requests_run_at_a_low_rate_and_more_when_it_is_raised() {
    for (limit, expected) in [(MB, 2), (20 * MB, 2), (21 * MB, 3), (200 * MB, 20), (UNLIMITED, u64::MAX)] {
        assert_eq!(requests(limit), expected, "{limit}");
    }
    let rate = Rate::new(Some(MB));
    let (first, _second) = (rate.enter().await, rate.enter().await);
    let enters = async || tokio::time::timeout(Duration::from_secs(1), rate.enter()).await;
    assert!(enters().await.is_err());
    let ends = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(first);
    };
    let (third, ()) = tokio::join!(enters(), ends);
    let _third = third.unwrap();
    let raising = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        rate.set(None);
    };
    let (fourth, ()) = tokio::join!(enters(), raising);
    assert!(fourth.is_ok());
}

#[test]
fn a_limit_is_never_below_the_least() {
    let rate = Rate::new(Some(1));
    assert_eq!(rate.bytes_per_second(), Some(LEAST_RATE));
    let same = rate.clone();
    same.set(Some(5 * MB));
    assert_eq!(rate.bytes_per_second(), Some(5 * MB));
    same.set(None);
    assert_eq!(rate.bytes_per_second(), None);
    assert_eq!((Rate::new(Some(MB)).chunk(), Rate::default().chunk()), (LEAST_CHUNK, LARGEST_CHUNK));
}
