//! Names under test: what the table keeps and for how long, when the thread looks again, and full queues.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::table::KEEP_GONE;
use super::*;

/// A container with this id.
pub(crate) fn container(id: &str) -> Arc<Container> {
    let path = format!("/docker/{}", id.repeat(64 / id.len()));
    crate::enrich::container::identify(path.as_bytes()).remove(0)
}

/// What a runtime might write.
pub(crate) fn named(name: &str) -> Metadata {
    let image = Some("registry.example/nginx:1.27".to_owned());
    Metadata { name: Some(name.to_owned()), image, ..Metadata::default() }
}

pub(crate) fn metrics() -> Arc<Metrics> {
    Arc::new(crate::pipeline::metrics().unwrap())
}

/// The thread's ends of the lines in the hands of a test.
pub(crate) struct Hand {
    ends: thread::Ends,
    asked: Vec<Question>,
}

impl Hand {
    /// Names whose questions the test answers.
    pub(crate) fn with_names(metrics: Arc<Metrics>, questions: usize) -> (Names, Hand) {
        let (names, ends) = Names::with_line(metrics, questions, ANSWERS);
        (names, Hand { ends, asked: Vec::new() })
    }

    /// Takes the questions; gives how many there were in all.
    pub(crate) fn take(&mut self) -> usize {
        self.asked.extend(self.ends.questions.try_iter());
        self.asked.len()
    }

    /// Answers the oldest question about the container; false if there is none.
    pub(crate) fn answer(&mut self, container: &Container, outcome: Result<Metadata, Miss>) -> bool {
        self.take();
        let Some(at) = self.asked.iter().position(|question| *question.container == *container) else {
            return false;
        };
        let Question { container, number } = self.asked.remove(at);
        self.ends.answers.send(Answer { container, number, outcome }).unwrap();
        self.ends.bell.ring();
        true
    }
}

#[test]
fn a_container_is_asked_for_once_and_known_after() {
    let (mut names, mut hand) = Hand::with_names(metrics(), 8);
    let (a, b) = (container("a"), container("b"));
    assert_eq!((names.of(Some(&a)), names.of(None)), (Named::Missing, Named::Nobody));
    names.found(&a);
    names.found(&a);
    names.found(&b);
    assert_eq!(hand.take(), 2);
    assert_eq!((names.awaited(&a).as_ref(), names.of(Some(&a))), (Some(&a), Named::Pending));
    assert!(hand.answer(&b, Err(Miss::NotFound)) && hand.answer(&a, Ok(named("web"))));
    assert_eq!(
        (names.answered(), names.answered(), names.answered()),
        (Some(b.clone()), Some(a.clone()), None)
    );
    assert_eq!((names.of(Some(&a)), names.of(Some(&b))), (Named::Complete(&named("web")), Named::Missing));
    assert_eq!((names.awaited(&a), names.awaited(&b)), (None, None));
}

#[test]
fn a_name_is_kept_for_a_minute_after_the_last_cgroup() {
    let (a, start) = (container("a"), Instant::now());
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut table = Table::new(4);
    assert!(table.found(&a) && !table.found(&a));
    table.removed(&a, at(1));
    table.forget(at(1000));
    assert!(table.state(&a).is_some(), "its own cgroup is still there");
    table.removed(&a, at(1001));
    table.removed(&a, at(1030));
    table.forget(at(1000) + KEEP_GONE);
    assert!(table.state(&a).is_some());
    table.forget(at(1001) + KEEP_GONE);
    assert_eq!((table.state(&a), table.len()), (None, 0));
    // What is not known leaves no trace.
    table.removed(&a, at(2000));
    assert!(table.is_empty());
}

#[test]
fn a_container_that_is_started_again_is_asked_for_again() {
    let (mut names, mut hand) = Hand::with_names(metrics(), 8);
    let (a, now) = (container("a"), Instant::now());
    names.found(&a);
    names.removed(&a, now);
    names.found(&a);
    assert_eq!(hand.take(), 2);
    // The first question is answered late, with a name that may be an old one.
    assert!(hand.answer(&a, Ok(named("old"))));
    assert_eq!((names.answered(), names.of(Some(&a))), (None, Named::Pending));
    assert!(hand.answer(&a, Ok(named("new"))));
    assert_eq!(names.answered().as_ref(), Some(&a));
    assert_eq!(names.of(Some(&a)), Named::Complete(&named("new")));
    names.tick(now + KEEP_GONE);
    assert_eq!(names.of(Some(&a)), Named::Complete(&named("new")), "it is not gone");
}

#[test]
fn an_old_name_is_read_again_and_counts_until_there_is_another() {
    let (mut names, mut hand) = Hand::with_names(metrics(), 8);
    let (a, start) = (container("a"), names.now);
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    names.found(&a);
    assert!(hand.answer(&a, Err(Miss::NotFound)) && names.answered().is_some());
    // (seconds, what is found, the question's answer, what is known after it)
    for (seconds, asks, found, known) in [
        (59, false, Ok("first"), None),
        (60, true, Ok("first"), Some("first")),
        (119, false, Ok("second"), Some("first")),
        (120, true, Err(Miss::NotJson), Some("first")),
        (180, true, Ok("second"), Some("second")),
    ] {
        names.tick(at(seconds));
        let before = names.of(Some(&a)) == Named::Missing;
        names.heard_of(&a);
        assert_eq!((names.of(Some(&a)) == Named::Missing, names.awaited(&a)), (before, None), "{seconds}");
        assert_eq!(hand.answer(&a, found.map(named)), asks, "{seconds}");
        assert_eq!(names.answered(), None, "nobody waited");
        let known = known.map(named);
        assert_eq!(names.of(Some(&a)), known.as_ref().map_or(Named::Missing, Named::Complete), "{seconds}");
    }
    names.removed(&a, at(181));
    names.tick(at(240));
    names.heard_of(&a);
    assert_eq!(hand.take(), 0, "what is gone does not change");
}

#[test]
fn the_table_is_bounded_and_the_living_do_not_give_way() {
    let now = Instant::now();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(container);
    let mut table = Table::new(2);
    assert!(table.found(&a) && table.found(&b) && !table.found(&c));
    assert_eq!((table.len(), table.evicted, table.state(&c)), (2, 1, None));
    table.removed(&b, now);
    table.removed(&a, now + Duration::from_secs(1));
    assert!(table.found(&d));
    assert_eq!((table.len(), table.evicted), (2, 2));
    assert!(table.state(&a).is_some() && table.state(&b).is_none(), "the one that is gone for longer");
}

#[test]
fn users_containers_have_a_part_of_the_table_and_give_way_to_the_systems() {
    let of_user = |id: &str| Arc::new(Container { user: Some(1000), ..(*container(id)).clone() });
    let now = Instant::now();
    let [a, b, c] = ["a", "b", "c"].map(of_user);
    let mut table = Table::new(8);
    assert!(table.found(&a) && table.found(&b) && !table.found(&c), "a quarter of eight is two");
    assert_eq!((table.len(), table.evicted), (2, 1));
    table.removed(&a, now);
    assert!(table.found(&c), "a dead one of theirs makes room");
    assert_eq!((table.state(&a), table.len(), table.evicted), (None, 2, 2));
    // The system's take the whole table, if they need it.
    let system = ["0", "1", "2", "3", "4", "5", "6", "7", "8"].map(container);
    for (i, container) in system.iter().enumerate() {
        assert_eq!(table.found(container), i < 8, "{i}");
    }
    assert_eq!((table.len(), table.state(&b), table.state(&c)), (8, None, None));
    table.removed(&system[0], now);
    assert!(!table.found(&a) && table.state(&system[0]).is_some(), "not even a dead one's name is theirs");
    table.forget(now + KEEP_GONE);
    assert!(table.found(&a), "there is room again");
    table.removed(&a, now);
    table.forget(now + KEEP_GONE);
    assert!(table.found(&b) && !table.found(&c), "no room in the table");
}

#[test]
fn an_id_that_somebody_else_gave_to_its_cgroup_has_no_share_in_the_name() {
    let (mut names, mut hand) = Hand::with_names(metrics(), 8);
    let real = container("a");
    let inside = Arc::new(Container { nested: true, ..(*real).clone() });
    let users = Arc::new(Container { user: Some(1000), ..(*real).clone() });
    for container in [&real, &inside, &users] {
        names.found(container);
    }
    assert_eq!((hand.take(), names.len()), (2, 2), "nobody has to be asked about what lies inside another");
    assert_eq!(names.state(&inside), Some(&State::Missing(Miss::Nested)));
    assert!(hand.answer(&real, Ok(named("web"))) && hand.answer(&users, Err(Miss::WrongOwner)));
    while names.answered().is_some() {}
    assert_eq!(names.of(Some(&real)), Named::Complete(&named("web")));
    assert_eq!((names.of(Some(&inside)), names.of(Some(&users))), (Named::Missing, Named::Missing));
}

#[test]
fn a_question_that_finds_no_room_is_counted_and_asked_by_the_next_event() {
    let metrics = metrics();
    let (mut names, mut hand) = Hand::with_names(Arc::clone(&metrics), 1);
    let (a, b) = (container("a"), container("b"));
    names.found(&a);
    names.found(&b);
    assert_eq!(metrics.metadata_questions_dropped.get(), 1);
    assert_eq!((names.awaited(&b), names.of(Some(&b))), (None, Named::Pending), "nobody reads it");
    assert_eq!(hand.take(), 1);
    names.heard_of(&b);
    names.heard_of(&b);
    assert_eq!(names.awaited(&b).as_ref(), Some(&b));
    assert_eq!((hand.take(), metrics.metadata_questions_dropped.get()), (2, 1));
    // Nor do questions stop the path when the thread is gone.
    drop(hand);
    let c = container("c");
    names.found(&c);
    assert_eq!((names.awaited(&c), names.awaited(&a), names.of(Some(&a))), (None, None, Named::Missing));
}

/// Waits for the next answer.
fn next_answer(names: &mut Names) -> Arc<Container> {
    let start = Instant::now();
    loop {
        if let Some(container) = names.answered() {
            return container;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "no answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_thread_looks_again_while_a_container_starts_and_meanwhile_for_others() {
    let metrics = metrics();
    let (mut names, ends) = Names::with_line(Arc::clone(&metrics), 8, 8);
    let (slow, quick, odd) = (container("a"), container("b"), container("c"));
    let looks = Arc::new(AtomicUsize::new(0));
    let (counted, slow_id, odd_id) = (Arc::clone(&looks), slow.id.clone(), odd.id.clone());
    let look = move |container: &Container| match &container.id {
        id if *id == odd_id => Err(Miss::TooLarge),
        id if *id != slow_id => Ok(named("quick")),
        _ if counted.fetch_add(1, Ordering::Relaxed) < 2 => Err(Miss::NotJson),
        _ => Ok(named("slow")),
    };
    thread::start(ends, look, Arc::clone(&metrics)).unwrap();
    let start = Instant::now();
    for container in [&slow, &odd, &quick] {
        names.found(container);
    }
    assert_eq!(next_answer(&mut names), odd, "what does not pass is not looked for again");
    assert_eq!(next_answer(&mut names), quick);
    assert_eq!(next_answer(&mut names), slow);
    assert!(start.elapsed() >= Duration::from_millis(70), "20 and 50 ms lie between the looks");
    assert_eq!(looks.load(Ordering::Relaxed), 3);
    assert_eq!(names.of(Some(&slow)), Named::Complete(&named("slow")));
    let text = metrics.encode().unwrap();
    for (result, count) in [("ok", 2), ("not_json", 2), ("too_large", 1), ("not_found", 0)] {
        let line = format!("ringfence_metadata_reads_total{{result=\"{result}\"}} {count}");
        assert!(text.lines().any(|l| l == line), "no {line}");
    }
}

/// A user's container with this number.
fn of_user(number: usize) -> Arc<Container> {
    Arc::new(Container { id: format!("{number:064x}"), user: Some(1000), ..(*container("a")).clone() })
}

#[test]
fn users_may_have_few_questions_under_way() {
    let metrics = metrics();
    let (mut names, mut hand) = Hand::with_names(Arc::clone(&metrics), 4 * USERS_QUESTIONS);
    let users: Vec<_> = (0..=USERS_QUESTIONS).map(of_user).collect();
    users.iter().for_each(|user| names.found(user));
    assert_eq!((hand.take(), metrics.metadata_questions_dropped.get()), (USERS_QUESTIONS, 1));
    let (system, last) = (container("b"), &users[USERS_QUESTIONS]);
    names.found(&system);
    assert_eq!(names.awaited(&system).as_ref(), Some(&system));
    assert!(hand.answer(&users[0], Err(Miss::WrongOwner)) && names.answered().is_some());
    names.heard_of(last);
    assert_eq!(names.awaited(last).as_ref(), Some(last), "its next event asks again");
}

#[test]
fn the_systems_containers_are_looked_for_before_the_users() {
    let metrics = metrics();
    let (mut names, ends) = Names::with_line(Arc::clone(&metrics), 8, 8);
    let (user, system) = (of_user(1), container("b"));
    names.found(&user);
    names.found(&system);
    thread::start(ends, |_: &Container| Ok(named("web")), metrics).unwrap();
    assert_eq!([next_answer(&mut names), next_answer(&mut names)], [system, user]);
}

#[tokio::test]
async fn an_answer_rings_the_bell() {
    let (mut names, mut hand) = Hand::with_names(metrics(), 8);
    let a = container("a");
    names.found(&a);
    assert!(hand.answer(&a, Err(Miss::Io)));
    let rung = tokio::time::timeout(Duration::from_secs(20), names.bell().rung()).await;
    assert!(rung.is_ok());
}

#[test]
fn without_a_thread_every_name_is_missing() {
    let mut names = Names::off(metrics());
    let a = container("a");
    names.found(&a);
    assert_eq!((names.awaited(&a), names.of(Some(&a)), names.len()), (None, Named::Missing, 0));
}
