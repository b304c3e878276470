//! Records go in, events come out.

use super::*;

fn record(time: u64, kind: Kind, cpu: u8, detail: u8, words: &[u64]) -> Record {
    let mut all = [0; 5];
    all[..words.len()].copy_from_slice(words);
    Record { number: time, time, kind, cpu, detail, memory: 1, words: all }
}

/// What is made of records, without the names of tracks.
fn events(records: &[Record]) -> Vec<Value> {
    let (mut tracks, mut events) = (Tracks::default(), Vec::new());
    let mut add = |event: Value| events.push(event);
    records.iter().for_each(|record| tracks.follow(record, &mut add));
    tracks.end(&mut add);
    events.retain(|event| event["ph"] != "M");
    events
}

fn of<'a>(events: &'a [Value], ph: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == ph).collect()
}

#[test]
fn an_arrow_leads_from_a_fault_to_where_its_thread_goes_on() {
    let events = events(&[
        record(1_000, Kind::Resume, 0, 0, &[5]),
        record(2_000, Kind::Leave, 0, 0, &[5]),
        record(2_500, Kind::Trap, 0, 1, &[5, 0x7000]),
        record(3_000, Kind::Park, 0, 0, &[5]),
        record(9_000, Kind::Resume, 3, 0, &[5]),
    ]);
    let (starts, ends) = (of(&events, "s"), of(&events, "f"));
    assert_eq!((starts.len(), ends.len()), (1, 1));
    assert_eq!(starts[0]["id"], ends[0]["id"]);
    assert_eq!((&starts[0]["pid"], &starts[0]["tid"], &starts[0]["ts"]), (&json!(2), &json!(5), &json!(2.5)));
    assert_eq!((&ends[0]["pid"], &ends[0]["tid"], &ends[0]["ts"]), (&json!(1), &json!(3), &json!(9.0)));
    let fault = of(&events, "X").into_iter().find(|event| event["name"] == "fault").unwrap();
    assert_eq!((&fault["dur"], &fault["args"]["access"]), (&json!(6.5), &json!("write")));
}

#[test]
fn a_fault_whose_thread_never_goes_on_has_no_arrow() {
    let events = events(&[record(1, Kind::Trap, 0, 0, &[5, 0x7000]), record(2, Kind::Interrupt, 0, 33, &[])]);
    assert!(of(&events, "s").is_empty() && of(&events, "f").is_empty());
    assert!(of(&events, "X").iter().any(|event| event["name"] == "fault"), "it shows even so");
}

#[test]
fn a_fault_that_ends_its_thread_ends_with_it() {
    let events = events(&[
        record(1_000, Kind::Trap, 0, 0, &[5, 0x7000]),
        record(3_000, Kind::End, 0, 0, &[5]),
        record(9_000, Kind::Interrupt, 0, 33, &[]),
    ]);
    assert!(of(&events, "s").is_empty());
    let fault = of(&events, "X").into_iter().find(|event| event["name"] == "fault").unwrap();
    assert_eq!(fault["dur"], 2.0);
}

#[test]
fn a_fault_that_is_resolved_at_once_has_an_arrow_too() {
    let events = events(&[record(2_000, Kind::AtOnce, 1, 4, &[5, 0x7000, 1_000])]);
    assert_eq!((of(&events, "s").len(), of(&events, "f").len()), (1, 1));
    assert_eq!(of(&events, "X")[0]["args"]["access"], "read in ring 3");
}

#[test]
fn a_page_is_named_by_what_the_kernel_says() {
    let name = |of: Named, number: u64, text: &[u8; 8]| {
        record(1, Kind::Name, 0, of as u8, &[number, u64::from_le_bytes(*text)])
    };
    let events = events(&[
        name(Named::State, 3, b"loaded\0\0"),
        name(Named::Event, 4, b"came\0\0\0\0"),
        record(2, Kind::State, 0, 4, &[1 << 63 | 2 << 32 | 9, 7, 1, 0x5013]),
    ]);
    assert_eq!(of(&events, "i")[0]["name"], "private 2.9 page 7: loaded (came)");
}

#[test]
fn a_wait_for_all_cpus_ends_those_that_began_before_it() {
    let events = events(&[
        record(1_000, Kind::ShootdownBegin, 0, 0, &[7]),
        record(2_000, Kind::ShootdownBegin, 0, 0, &[8]),
        record(3_000, Kind::ShootdownBegin, 0, 0, &[9]),
        record(4_000, Kind::ShootdownEnd, 0, 0, &[8]),
        record(6_000, Kind::Evict, 0, 0, &[1, 2]),
    ]);
    let ends: Vec<&Value> = of(&events, "e").iter().map(|event| &event["ts"]).collect();
    assert_eq!(ends, [&json!(4.0), &json!(4.0), &json!(6.0)]);
}

#[test]
fn a_loss_is_shown_and_ends_what_went_on() {
    let (mut tracks, mut events) = (Tracks::default(), Vec::new());
    let mut add = |event: Value| events.push(event);
    tracks.follow(&record(1_000, Kind::PollBegin, 0, 0, &[4]), &mut add);
    tracks.follow(&record(2_000, Kind::Interrupt, 0, 33, &[]), &mut add);
    tracks.lose(12, &mut add);
    tracks.follow(&record(9_000, Kind::PollEnd, 0, 0, &[4]), &mut add);
    tracks.end(&mut add);
    let polls: Vec<&Value> = of(&events, "X").into_iter().filter(|event| event["pid"] == 3).collect();
    assert_eq!(polls.len(), 1);
    assert_eq!(polls[0]["dur"], 1.0);
    assert!(events.iter().any(|event| event["name"] == "12 records lost"));
}

#[test]
fn a_pagers_request_ends_with_its_last_page() {
    let events = events(&[
        record(1_000, Kind::Asked, 0, 0, &[7, 10, 3]),
        record(2_000, Kind::Asked, 0, 1, &[7, 11, 1]),
        record(3_000, Kind::Answered, 0, 0, &[7, 11]),
        record(4_000, Kind::Answered, 0, 2, &[7, 10]),
        record(5_000, Kind::Answered, 0, 1, &[7, 11]),
        record(9_000, Kind::Answered, 0, 0, &[7, 12]),
        record(9_500, Kind::Answered, 0, 0, &[7, 12]),
    ]);
    let (begins, ends) = (of(&events, "b"), of(&events, "e"));
    assert_eq!((begins.len(), ends.len()), (2, 2));
    let times = |number: usize| (begins[number]["ts"].as_f64(), ends[number]["ts"].as_f64());
    assert_eq!((times(0), &begins[0]["args"]["what"]), ((Some(2.0), Some(5.0)), &json!("store")));
    assert_eq!((times(1), &begins[1]["args"]["failed"]), ((Some(1.0), Some(9.0)), &json!(1)));
    assert_eq!(begins[1]["args"]["not ended"], 0);
}

#[test]
fn a_pagers_request_ends_with_its_object_or_the_trace() {
    let events = events(&[
        record(1_000, Kind::Asked, 0, 0, &[7, 10, 3]),
        record(2_000, Kind::Asked, 0, 0, &[8, 10, 1]),
        record(3_000, Kind::Ended, 0, 0, &[7]),
        record(6_000, Kind::Interrupt, 0, 33, &[]),
    ]);
    let ends: Vec<_> = of(&events, "e").iter().map(|end| end["ts"].as_f64()).collect();
    assert_eq!(ends, [Some(3.0), Some(6.0)]);
}
