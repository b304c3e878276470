//! What a block pager wants of its device: pages that follow each other, and their frames as a scatter list.
#![allow(unsafe_code, reason = "hands frames to a device")]

use drivers::block::{Operation, Segment, Segments};
use mm::{OutOfMemory, PAGE_SIZE, PageError, PageRequest, Requests, StoreRequest};

use crate::memory;

/// What is wanted of the device.
pub(super) enum Request {
    Load(Requests<PageRequest>),
    Store(Requests<StoreRequest>),
}

impl Request {
    pub(super) fn first(&self) -> u64 {
        match self {
            Request::Load(loads) => loads.first().as_u64(),
            Request::Store(stores) => stores.first().as_u64(),
        }
    }

    pub(super) fn pages(&self) -> usize {
        match self {
            Request::Load(loads) => loads.len(),
            Request::Store(stores) => stores.len(),
        }
    }

    pub(super) fn fail(self, error: PageError) {
        self.complete(0, error);
    }

    /// The first `bytes` bytes are done.
    pub(super) fn complete(self, bytes: usize, rest: PageError) {
        match self {
            Request::Load(loads) => loads.complete(bytes, rest),
            Request::Store(stores) => stores.complete(bytes, rest),
        }
    }

    pub(super) fn split_off(&mut self, pages: usize) -> Result<Option<Self>, OutOfMemory> {
        Ok(match self {
            Request::Load(loads) => loads.split_off(pages)?.map(Request::Load),
            Request::Store(stores) => stores.split_off(pages)?.map(Request::Store),
        })
    }

    /// Gives a frame to the first page of a load, if there is one for it.
    pub(super) fn take_first_frame(&mut self) -> bool {
        let Request::Load(loads) = self else { return true };
        let first = &mut loads.as_mut_slice()[0];
        first.frame_address().is_some() || first.try_attach()
    }

    /// The same where there is none: waits for it, if somebody wants the page.
    pub(super) async fn wait_for_first_frame(&mut self) -> Result<(), OutOfMemory> {
        match self {
            Request::Load(loads) if !loads.as_slice()[0].is_ahead() => {
                let frame = memory::memory().frames().alloc().await?;
                loads.as_mut_slice()[0].attach(frame);
                Ok(())
            }
            _ => Err(OutOfMemory),
        }
    }

    /// Gives frames to the other pages of a load. Pages that are read ahead get one only if there are some to spare. Where
    /// there is none, the request ends before that page, and what is wanted of the rest is answered.
    pub(super) fn take_frames(&mut self) -> Result<Option<Self>, OutOfMemory> {
        let Request::Load(loads) = self else { return Ok(None) };
        let others = loads.as_mut_slice().iter_mut().skip(1);
        let Some(number) = others.map(PageRequest::try_attach).position(|has_frame| !has_frame) else {
            return Ok(None);
        };
        let first = number + 1;
        if loads.as_slice()[first].is_ahead() {
            loads.truncate(first);
            return Ok(None);
        }
        Ok(loads.split_off(first)?.map(Request::Load))
    }

    /// Where the device reads or writes the first `bytes` bytes. What follows them in a page that is loaded is zero.
    pub(super) fn segments(&mut self, bytes: usize) -> Result<Segments, OutOfMemory> {
        let pages = bytes.div_ceil(PAGE_SIZE);
        let mut segments = Segments::new();
        segments.try_reserve(pages).map_err(|_| OutOfMemory)?;
        for number in 0..pages {
            let within = (bytes - number * PAGE_SIZE).min(PAGE_SIZE);
            let address = match self {
                Request::Load(loads) => loads.as_mut_slice()[number].frame_mut().map(|frame| {
                    if within < PAGE_SIZE {
                        frame.as_bytes_mut()[within..].fill(0);
                    }
                    frame.address()
                }),
                Request::Store(stores) => Some(stores.as_slice()[number].frame_address()),
            };
            let address = address.ok_or(OutOfMemory)?.as_u64();
            // SAFETY: the frame belongs to the request or to the page that it stores, which keeps it, until the client
            // is told that the device is done.
            let segment = unsafe { Segment::new(address, within as u32) };
            // Frames that follow each other are one piece for the device.
            let last = segments.last_mut().map(|last: &mut Segment| (last.joined(segment), last));
            match last {
                Some((Some(joined), last)) => *last = joined,
                _ => segments.push(segment),
            }
        }
        Ok(segments)
    }

    pub(super) fn operation(&self) -> Operation {
        match self {
            Request::Load(_) => Operation::Read,
            Request::Store(_) => Operation::Write,
        }
    }
}
