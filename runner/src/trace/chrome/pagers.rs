//! What pagers are asked for: each request on its object's track, until the last of its pages has been answered.
use std::collections::HashMap;

use serde_json::json;

use super::{Add, PAGERS, span};
use crate::trace::layout::{Named, Record};

/// A memory, and an object of it.
pub(super) type Object = (u16, u64);

/// The names of all things, by what they are and their numbers.
type Names = HashMap<(u8, u64), String>;

/// The number of an object's track. Objects' numbers have 32 bits.
pub(super) fn track((memory, object): Object) -> u64 {
    u64::from(memory) << 32 | object
}

/// Requests that are not answered.
#[derive(Default)]
pub(super) struct Asked {
    /// By the numbers of their records.
    requests: HashMap<u64, Request>,
    /// The request that has a page; stores of it and loads apart.
    pages: HashMap<(Object, bool, u64), u64>,
}

struct Request {
    begun: Record,
    object: Object,
    left: u64,
    failed: u64,
}

impl Asked {
    pub(super) fn begin(&mut self, record: &Record) {
        let [object, first, pages, ..] = record.words;
        let object = (record.memory, object);
        for page in first..first.saturating_add(pages) {
            self.pages.insert((object, record.detail & 1 != 0, page), record.number);
        }
        self.requests.insert(record.number, Request { begun: *record, object, left: pages, failed: 0 });
    }

    pub(super) fn answer(&mut self, record: &Record, names: &Names, add: Add<'_>) {
        let [object, page, ..] = record.words;
        let page = ((record.memory, object), record.detail & 1 != 0, page);
        let Some(number) = self.pages.remove(&page) else { return };
        let Some(request) = self.requests.get_mut(&number) else { return };
        request.left -= 1;
        request.failed += u64::from(record.detail >> 1 & 1);
        if request.left == 0 {
            self.end(number, record.time, names, add);
        }
    }

    /// The object has ended: its pager answers nobody.
    pub(super) fn end_object(&mut self, object: Object, time: u64, names: &Names, add: Add<'_>) {
        let its: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, request)| request.object == object)
            .map(|(&number, _)| number)
            .collect();
        its.into_iter().for_each(|number| self.end(number, time, names, add));
        self.pages.retain(|(of, _, _), _| *of != object);
    }

    pub(super) fn end_all(&mut self, time: u64, names: &Names, add: Add<'_>) {
        let all: Vec<u64> = self.requests.keys().copied().collect();
        all.into_iter().for_each(|number| self.end(number, time, names, add));
        self.pages.clear();
    }

    fn end(&mut self, number: u64, time: u64, names: &Names, add: Add<'_>) {
        let Some(Request { begun, object, left, failed }) = self.requests.remove(&number) else { return };
        let [_, first, pages, ..] = begun.words;
        let track = track(object);
        let name = names.get(&(Named::Pager as u8, track)).cloned().unwrap_or_else(|| "pager".into());
        let what = if begun.detail & 1 == 0 { "load" } else { "store" };
        let args = json!({ "what": what, "memory": object.0, "object": object.1, "first page": first,
            "pages": pages, "failed": failed, "not ended": left });
        span(PAGERS, track, &name, &format!("p{number}"), begun.time, time, args, add);
    }
}
