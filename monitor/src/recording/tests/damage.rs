//! Files that were cut, flipped, torn and made to hurt.

use super::*;

/// Three small blocks of two events each.
fn small() -> (Vec<Recorded>, Vec<u8>) {
    let events = few(6);
    let bytes = file_of(&[&events[..2], &events[2..4], &events[4..]]);
    (events, bytes)
}

/// Where the blocks of a file begin, and its end.
fn begins(bytes: &[u8]) -> Vec<usize> {
    let magic = |at: &usize| bytes[*at..].starts_with(&BLOCK_MAGIC);
    (0..bytes.len()).filter(magic).chain([bytes.len()]).collect()
}

#[test]
fn a_file_cut_at_any_length_is_read_up_to_the_cut() {
    let (events, bytes) = small();
    let begins = begins(&bytes);
    for len in 0..bytes.len() {
        let (read, damages, tally) = read(&bytes[..len]);
        let whole = begins.iter().skip(1).filter(|end| **end <= len).count();
        assert_eq!(read, events[..whole * 2], "cut at {len}");
        let at_a_border = begins.contains(&len) && len > 0;
        assert_eq!(damages.len(), usize::from(!at_a_border), "cut at {len}: {damages:?}");
        if let [damage] = damages[..] {
            let begin = if len < begins[0] { 0 } else { begins[whole] };
            assert_eq!((damage.offset, damage.bytes), (begin as u64, (len - begin) as u64), "cut at {len}");
            assert_eq!((damage.events_before, damage.why), (whole as u64 * 2, Why::Cut), "cut at {len}");
            let head_is_whole = len >= begin + HEAD && begin > 0;
            assert_eq!(damage.events_lost, head_is_whole.then_some(2), "cut at {len}");
        }
        assert_eq!(tally.events, read.len() as u64);
    }
}

#[test]
fn a_flipped_byte_costs_its_block_and_no_other() {
    let (events, bytes) = small();
    let begins = begins(&bytes);
    for at in 0..bytes.len() {
        for mask in [0xff, 0x01, 0x80] {
            let mut wrong = bytes.clone();
            wrong[at] ^= mask;
            let (read, damages, tally) = read(&wrong);
            assert_eq!(damages.len(), 1, "byte {at}: {damages:?}");
            let Some(block) = begins.iter().rposition(|begin| *begin <= at) else {
                // The file's head: nothing is lost.
                assert_eq!((read, damages[0].why), (events.clone(), Why::FileHead), "byte {at}");
                continue;
            };
            let left = [&events[..block * 2], &events[block * 2 + 2..]].concat();
            assert_eq!(read, left, "byte {at}");
            let damage = damages[0];
            assert_eq!((damage.offset, damage.events_before), (begins[block] as u64, block as u64 * 2));
            assert_eq!(damage.bytes, (begins[block + 1] - begins[block]) as u64, "byte {at}");
            // A damaged head tells nothing of its events.
            let of_head = at < begins[block] + HEAD;
            assert_eq!(damage.events_lost, (!of_head).then_some(2), "byte {at}");
            assert_eq!(tally.events_lost, damage.events_lost.unwrap_or(0));
        }
    }
}

#[test]
fn missing_and_strange_bytes_between_blocks_are_passed_over() {
    let (events, bytes) = small();
    let begins = begins(&bytes);
    // A torn block, then whole ones: the middle of the first is missing.
    let torn = [&bytes[..begins[0] + HEAD + 5], &bytes[begins[1]..]].concat();
    let (read_events, damages, _) = read(&torn);
    assert_eq!(read_events, events[2..]);
    assert_eq!((damages.len(), damages[0].events_lost), (1, Some(2)));
    let strange = [&bytes[..begins[1]], &[0xf8; 100_000], &BLOCK_MAGIC[..7], &bytes[begins[1]..]].concat();
    let (read_events, damages, tally) = read(&strange);
    assert_eq!((read_events.len(), damages.len(), damages[0].why), (6, 1, Why::NoBlock));
    assert_eq!((damages[0].offset, tally.damaged_bytes), (begins[1] as u64, 100_007));
}

#[test]
fn what_is_no_recording_is_told() {
    for other in [&b"- rule: x\n"[..], &[0; 4096], b"\x7fELF"] {
        let mut recording = Recording::new(other);
        while recording.next_item().unwrap().is_some() {}
        assert!(recording.is_foreign());
    }
    let (_, bytes) = small();
    let mut recording = Recording::new(&bytes[FILE_HEAD..]);
    while recording.next_item().unwrap().is_some() {}
    assert!(!recording.is_foreign(), "only its head is missing");
}

fn block(codec: u8, raw: usize, events: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        version: FORMAT_VERSION,
        kind: KIND_EVENTS,
        codec,
        stored: payload.len() as u32,
        raw: raw as u32,
        events,
        sum: crc32fast::hash(payload),
        ..Head::default()
    };
    [&file_head()[..], &head.to_bytes(), payload].concat()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_bomb_is_refused() {
    // 4 MiB behind a head that promises one, and one that promises 64.
    let bomb = deflated(&vec![0; 4 << 20]);
    for (raw, why) in [(MAX_RAW, Why::Nonsense), (64 << 20, Why::Bounds)] {
        let (events, damages, _) = read(&block(DEFLATE, raw, 1, &bomb));
        assert_eq!((events.len(), damages.len(), damages[0].why), (0, 1, why));
    }
    // One text of half a megabyte, in each of ten thousand events of a hundred values each.
    let mut raw = Vec::new();
    for text in ["host", "1"] {
        push_text(text, &mut raw);
    }
    push_number(1, &mut raw);
    push_text("container.label", &mut raw);
    push_number(2, &mut raw);
    raw.push(b'k');
    push_number(2, &mut raw);
    push_text("setns", &mut raw);
    push_text(&"x".repeat(MAX_EVENT_TEXT - 10), &mut raw);
    let event = [&[5, 0, 0, 0, tag::TEXT as u8, 1][..]].concat();
    let many = [raw.clone(), event.repeat(10_000)].concat();
    let (events, damages, _) = read(&block(STORED, many.len(), 10_000, &many));
    assert!(events.len() * (MAX_EVENT_TEXT - 10) <= MAX_UNFOLDED, "{}", events.len());
    assert_eq!((damages.len(), damages[0].why), (1, Why::Nonsense));
    assert_eq!(damages[0].events_lost, Some(10_000 - events.len() as u64));
    // In one event it is refused at once.
    let twice = [raw, vec![7, 0, 0, 0, tag::TEXT as u8, 1, tag::TEXT as u8, 1]].concat();
    assert_eq!(read(&block(STORED, twice.len(), 1, &twice)).0, []);
}

#[test]
fn heads_that_claim_the_same_bytes_are_not_checked_again_and_again() {
    let head = Head {
        version: FORMAT_VERSION,
        kind: KIND_EVENTS,
        stored: MAX_RAW as u32,
        raw: 4,
        events: 1,
        sum: 1,
        ..Head::default()
    };
    let mut bytes = file_head().to_vec();
    for _ in 0..(1 << 20) / HEAD {
        bytes.extend(head.to_bytes());
    }
    let start = std::time::Instant::now();
    let (events, damages) = read_any(&bytes);
    // 19,000 times up to a megabyte would take minutes.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    assert_eq!(events, 0);
    assert!(damages > 0, "{damages}");
}
