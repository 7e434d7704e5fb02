//! The waiting room under test, against a model that does the same by plain search.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// What is done to a room.
#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(usize),
    Answer(usize),
    Pass(u64),
    Leave,
}

const CONTAINERS: usize = 4;
const WAIT: Duration = Duration::from_millis(250);

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..CONTAINERS).prop_map(Step::Enter),
        1 => (0..CONTAINERS).prop_map(Step::Answer),
        2 => (0_u64..120).prop_map(Step::Pass),
        1 => Just(Step::Leave),
    ]
}

/// Something that waits: whose it is, its number, and when it came.
type Thing = (usize, u64, Instant);

fn remove(model: &mut Vec<Thing>, fits: impl Fn(&Thing) -> bool) -> Option<Thing> {
    model.iter().position(fits).map(|at| model.remove(at))
}

proptest! {
    #[test]
    fn the_room_does_as_the_model(
        capacity in 0_usize..8, share in 0_usize..8, steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut room = Room::new(capacity, share);
        let (capacity, share) = (capacity.max(1), share.clamp(1, capacity.max(1)));
        let mut model: Vec<Thing> = Vec::new();
        let (mut now, mut entered) = (Instant::now(), 0_u64);
        let mut left: Vec<Thing> = Vec::new();
        for step in steps {
            match step {
                Step::Enter(whose) => {
                    let thing = (whose, entered, now);
                    entered += 1;
                    let own = model.iter().filter(|thing| thing.0 == whose).count();
                    let expected = if own >= share {
                        remove(&mut model, |thing| thing.0 == whose)
                    } else if model.len() >= capacity {
                        remove(&mut model, |_| true)
                    } else {
                        None
                    };
                    let leaves = room.enter(&Arc::new(whose), now + WAIT, thing);
                    prop_assert_eq!(leaves, expected);
                    left.extend(leaves);
                    model.push(thing);
                }
                Step::Answer(whose) => {
                    while let Some(thing) = room.call(&whose) {
                        prop_assert_eq!(Some(thing), remove(&mut model, |thing| thing.0 == whose));
                        left.push(thing);
                    }
                    prop_assert!(!room.holds(&whose));
                }
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    while let Some(thing) = room.due(now) {
                        prop_assert_eq!(Some(thing), remove(&mut model, |thing| now >= thing.2 + WAIT));
                        left.push(thing);
                    }
                }
                Step::Leave => {
                    let oldest = room.oldest();
                    prop_assert_eq!(oldest, remove(&mut model, |_| true));
                    left.extend(oldest);
                }
            }
            prop_assert!(model.len() <= capacity);
            prop_assert_eq!(room.len(), model.len());
            prop_assert_eq!(room.deadline(), model.first().map(|thing| thing.2 + WAIT));
            for whose in 0..CONTAINERS {
                prop_assert_eq!(room.holds(&whose), model.iter().any(|thing| thing.0 == whose));
            }
        }
        // The end of the daemon: all leave.
        while let Some(thing) = room.oldest() {
            left.push(thing);
        }
        prop_assert!(room.is_empty() && room.by_container.is_empty());
        // Each once, and those of a container in their order.
        prop_assert_eq!(left.len() as u64, entered);
        for whose in 0..CONTAINERS {
            let numbers: Vec<u64> = left.iter().filter(|thing| thing.0 == whose).map(|thing| thing.1).collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{:?}", numbers);
        }
    }
}

#[test]
fn a_flood_of_one_container_does_not_push_out_another() {
    let (mut room, until) = (Room::new(ROOM, ROOM_OF_ONE), Instant::now() + WAIT);
    let (quiet, loud) = (Arc::new("quiet"), Arc::new("loud"));
    assert_eq!(room.enter(&quiet, until, 0), None);
    let pushed_out = (1..=10 * ROOM).filter_map(|i| room.enter(&loud, until, i)).count();
    assert_eq!((pushed_out, room.len()), (10 * ROOM - ROOM_OF_ONE, ROOM_OF_ONE + 1));
    assert_eq!(room.call(&"quiet"), Some(0));
}
