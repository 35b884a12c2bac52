//! The power is cut, or the process killed, before and after everything that a boot does; then the host boots again. The model panics at what must never
//! happen: accepted writes removed or overwritten, something served without a marker or half restored, an older Qdrant on what a newer one has touched.

use super::model::{Backup, CONFIGURED, Cut, Quality::Good, Quality::Wrong, World, id, order, plain};
use crate::{boot::Order, cli::BootArgs};

/// A world before the boot that is cut, and how that is called.
struct Scenario {
    name: &'static str,
    world: fn() -> World,
    /// What happens to the world when a first boot has served its newest backup; nothing was booted before where this is absent.
    after_serving: Option<fn(&World)>,
    order: fn() -> Order,
    /// What may be served in the end.
    serves: fn(&World) -> Vec<String>,
}

const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "the published backup",
        world: || World::new(&[(1, "1.18.3", true, Good), (2, "1.18.3", false, Good)]),
        after_serving: None,
        order: plain,
        serves: newest,
    },
    Scenario {
        name: "a backup of the minor version before",
        world: || World::new(&[(2, "1.17.4", false, Good)]),
        after_serving: None,
        order: plain,
        serves: newest,
    },
    Scenario {
        name: "the newest is wrong, an older one is proved",
        world: || World::new(&[(1, "1.17.4", true, Good), (2, "1.18.3", false, Wrong)]),
        after_serving: None,
        order: plain,
        serves: |_| vec![id(1).to_string()],
    },
    Scenario {
        name: "nothing was ever stored",
        world: || World::new(&[]),
        after_serving: None,
        order: plain,
        serves: |_| vec!["nothing".to_owned()],
    },
    Scenario {
        name: "local snapshots",
        world: || {
            let world = World::new(&[]);
            world.state().local_snapshots = true;
            world
        },
        after_serving: None,
        order: plain,
        serves: |_| vec!["local".to_owned()],
    },
    Scenario {
        name: "a reboot with a newer version configured",
        world: || World::new(&[(1, "1.18.3", true, Good)]),
        after_serving: Some(|_| ()),
        order: || order("qdrant/qdrant:v1.19.0-unprivileged", BootArgs::default()),
        serves: |_| vec![id(1).to_string()],
    },
    Scenario {
        name: "--replace",
        world: || World::new(&[(1, "1.18.3", true, Good)]),
        after_serving: Some(|world| {
            let mut state = world.state();
            state.replacing = true;
            state.backups.insert(id(2), Backup { version: "1.18.3", proved: false, is: Good });
        }),
        order: || order(CONFIGURED, BootArgs { replace: true, ..BootArgs::default() }),
        // Cut before the marker was cleared, nothing has happened.
        serves: |world| if world.state().restores > 1 { newest(world) } else { vec![id(1).to_string()] },
    },
];

fn newest(_: &World) -> Vec<String> {
    vec![id(2).to_string()]
}

impl Scenario {
    /// The world, and how the boot after a cut is called: as systemd does it, which types nothing.
    async fn begin(&self) -> (World, Order, Order) {
        let world = (self.world)();
        if let Some(meanwhile) = self.after_serving {
            world.run(&plain(), None).await.unwrap().unwrap();
            assert_eq!(world.served().unwrap().1, 1, "a client has written");
            world.state().container = None;
            meanwhile(&world);
        }
        let order = (self.order)();
        let afterwards = Order { args: BootArgs::default(), ..order.clone() };
        (world, order, afterwards)
    }

    fn check(&self, world: &World, cuts: &[(usize, Cut)]) {
        let (of, writes) =
            world.served().unwrap_or_else(|| panic!("{} cut at {cuts:?}: nothing is served", self.name));
        assert!((self.serves)(world).contains(&of), "{} cut at {cuts:?}: {of} is served", self.name);
        assert!(of == "nothing" || writes > 0);
        let state = world.state();
        assert_eq!(state.served_empty, of == "nothing");
        assert!(state.completed > 0, "{} cut at {cuts:?}: nobody was told", self.name);
        let record = state.record.as_ref().unwrap();
        assert!(record.marker.is_some() && record.serving_after_seconds.is_some() && record.held.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_is_cut_anywhere_is_finished_by_the_next() {
    for scenario in SCENARIOS {
        let (world, order, _) = scenario.begin().await;
        world.run(&order, None).await.unwrap().unwrap();
        scenario.check(&world, &[]);
        let points = 2 * world.effects();
        assert!(points >= 20, "{}: {points}", scenario.name);
        for kind in [Cut::Power, Cut::Kill] {
            for point in 1..=points {
                let (world, order, afterwards) = scenario.begin().await;
                let cut = (point, kind);
                assert!(world.run(&order, Some(cut)).await.is_none(), "{} is cut at {cut:?}", scenario.name);
                world.run(&afterwards, None).await.unwrap().unwrap();
                scenario.check(&world, &[cut]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn so_is_one_that_is_cut_twice() {
    for scenario in SCENARIOS {
        let (world, order, _) = scenario.begin().await;
        world.run(&order, None).await.unwrap().unwrap();
        let points = 2 * world.effects();
        for first in 1..=points {
            // The second boot has as many points as are left to do; the last is the one that is not reached.
            for second in 1.. {
                let (world, order, afterwards) = scenario.begin().await;
                let cuts = [(first, Cut::Power), (second, Cut::Kill)];
                assert!(world.run(&order, Some(cuts[0])).await.is_none());
                let reached = world.run(&afterwards, Some(cuts[1])).await.is_none();
                world.run(&afterwards, None).await.unwrap().unwrap();
                scenario.check(&world, &cuts);
                if !reached {
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_boot_does_not_disturb_what_serves() {
    let world = World::new(&[(1, "1.18.3", true, Good)]);
    world.run(&plain(), None).await.unwrap().unwrap();
    let starts = world.state().starts.len();
    world.run(&plain(), None).await.unwrap().unwrap();
    assert_eq!(world.state().starts.len(), starts, "it runs, and is not started again");
    assert_eq!(world.served(), Some((id(1).to_string(), 1)));
}
