//! A block's payload into events.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress, Status};

use super::format::*;
use crate::event_type::EventType;
use crate::fields::{Field, FieldKey, FieldValues, MAX_LIST, Value, owned_list};

/// What is passed over because this version does not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Values of fields that the catalogue does not have, or has with another type.
    pub(super) values: u64,
    /// Events of types that are not known.
    pub(super) events: u64,
}

/// An event out of a block.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) unix_ns: i64,
    pub(super) boot_ns: u64,
    /// `None`: a type of another version.
    pub(super) ty: Option<EventType>,
    pub(super) values: FieldValues,
}

/// A block that is being read.
#[derive(Debug)]
pub(super) struct Block {
    raw: Vec<u8>,
    pub(super) hostname: Arc<str>,
    names: Vec<Name>,
    texts: Vec<Range<usize>>,
    /// Where the next event begins.
    at: usize,
    pub(super) left: u32,
    unfolded: usize,
    last_unix: i64,
    last_boot: i64,
    pub(super) skipped: Skipped,
}

/// A field's name with its argument; the key is made anew for each event, because it may borrow from the block.
#[derive(Debug)]
struct Name {
    /// Of the field and its argument.
    name: Range<usize>,
    arg: Option<Range<usize>>,
    known: bool,
    /// If the argument is of a closed set.
    closed: Option<FieldKey<'static>>,
}

impl Block {
    /// Unpacks a payload into `raw`, and reads its tables. `None`: it makes no sense.
    pub(super) fn open(head: Head, payload: &[u8], mut raw: Vec<u8>) -> Option<Block> {
        unpack(head, payload, &mut raw)?;
        let mut input = Input(&raw);
        let hostname = Arc::from(input.text()?);
        // The version that wrote it, for people.
        input.text()?;
        let count = usize::try_from(input.number()?).ok().filter(|count| *count <= MAX_NAMES)?;
        let here = |input: &Input<'_>| raw.len() - input.0.len();
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let text = input.text()?;
            let name = here(&input) - text.len()..here(&input);
            let arg = match usize::try_from(input.number()?).ok()?.checked_sub(1) {
                None => None,
                Some(len) => {
                    let arg = str::from_utf8(input.take(len)?).ok()?;
                    Some((arg, here(&input) - len..here(&input)))
                }
            };
            let (arg, place) = arg.unzip();
            let known = FieldKey::find(text, arg);
            let closed = known.and_then(|key| crate::fields::closed_keys().get(key.position()?)).copied();
            names.push(Name { name, arg: place, known: known.is_some(), closed });
        }
        let count = usize::try_from(input.number()?).ok().filter(|count| *count <= input.0.len())?;
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let len = input.text()?.len();
            texts.push(here(&input) - len..here(&input));
        }
        let at = here(&input);
        Some(Block {
            hostname,
            names,
            texts,
            at,
            left: head.events,
            unfolded: 0,
            last_unix: 0,
            last_boot: 0,
            skipped: Skipped::default(),
            raw,
        })
    }

    /// The buffer, for the next block.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.raw
    }

    /// The next event. `None`: the rest makes no sense. Not to be called when none is `left`.
    pub(super) fn next(&mut self) -> Option<Decoded> {
        let mut input = Input(self.raw.get(self.at..)?);
        let len = usize::try_from(input.number()?).ok()?;
        let mut body = Input(input.take(len)?);
        self.at = self.raw.len() - input.0.len();
        let unix_ns = self.last_unix.wrapping_add(body.signed()?);
        let boot_ns = self.last_boot.wrapping_add(body.signed()?);
        (self.last_unix, self.last_boot) = (unix_ns, boot_ns);
        let type_name = self.text(body.number()?)?;
        let ty = EventType::all().find(|ty| ty.name() == type_name);
        let mut values = FieldValues::default();
        let (mut size, mut unknown) = (0, 0);
        while !body.0.is_empty() {
            let tagged = body.number()?;
            let name = self.names.get(usize::try_from(tagged >> tag::BITS).ok()?)?;
            let value = match tagged & ((1 << tag::BITS) - 1) {
                tag::TEXT => {
                    let text = self.text(body.number()?)?;
                    size += text.len();
                    within(size)?;
                    Value::Text(Cow::Owned(text.to_owned()))
                }
                tag::NUMBER => Value::Number(body.signed()?),
                tag::FALSE => Value::Bool(false),
                tag::TRUE => Value::Bool(true),
                tag::LIST => {
                    let len = usize::try_from(body.number()?).ok().filter(|len| *len <= MAX_LIST)?;
                    let mut members = Vec::with_capacity(len);
                    for _ in 0..len {
                        let text = self.text(body.number()?)?;
                        size += text.len();
                        within(size)?;
                        members.push(text.to_owned());
                    }
                    owned_list(members)
                }
                // A kind of value of another version: what is behind it cannot be told.
                _ => {
                    unknown += 1;
                    break;
                }
            };
            match self.key(name) {
                Some(key) if values.set_key(key, value).is_ok() => {}
                _ => unknown += 1,
            }
            // Names count too: a label's is kept with its value.
            size += name.arg.as_ref().map_or(0, |arg| arg.len());
            within(size)?;
        }
        self.unfolded += size;
        if self.unfolded > MAX_UNFOLDED {
            return None;
        }
        self.left = self.left.saturating_sub(1);
        self.skipped.values += unknown;
        if let Some(ty) = ty {
            let plain = |field| FieldKey { field, arg: crate::fields::KeyArg::None };
            let boot = Value::Number(boot_ns);
            // Both are of the catalogue, with these types.
            let _ = values.set_key(plain(Field::EvtType), Value::text(ty.name()));
            let _ = values.set_key(plain(Field::EvtBootNs), boot);
        } else {
            self.skipped.events += 1;
        }
        Some(Decoded { unix_ns, boot_ns: boot_ns.cast_unsigned(), ty, values })
    }

    fn text(&self, number: u64) -> Option<&str> {
        let range = self.texts.get(usize::try_from(number).ok()?)?;
        str::from_utf8(self.raw.get(range.clone())?).ok()
    }

    fn key<'n>(&'n self, name: &'n Name) -> Option<FieldKey<'n>> {
        if name.closed.is_some() || !name.known {
            return name.closed;
        }
        let text = |range: &Range<usize>| str::from_utf8(self.raw.get(range.clone())?).ok();
        FieldKey::find(text(&name.name)?, name.arg.as_ref().and_then(text))
    }
}

fn within(size: usize) -> Option<()> {
    (size <= MAX_EVENT_TEXT).then_some(())
}

/// Exactly the bytes that the head states, or nothing.
fn unpack(head: Head, payload: &[u8], raw: &mut Vec<u8>) -> Option<()> {
    let len = head.raw as usize;
    raw.clear();
    match head.codec {
        STORED => raw.extend_from_slice(payload),
        DEFLATE => {
            raw.resize(len, 0);
            let mut inflate = Decompress::new(false);
            let status = inflate.decompress(payload, raw, FlushDecompress::Finish).ok()?;
            let whole = status == Status::StreamEnd
                && inflate.total_out() == len as u64
                && inflate.total_in() == payload.len() as u64;
            whole.then_some(())?;
        }
        _ => return None,
    }
    (raw.len() == len).then_some(())
}
