//! Page requests: one load of one page, from the pager's side.

use crate::{Frame, PageError, PageIndex, PhysAddr};

/// A load of one page, in the hands of a pager. It owns the frame that is filled.
pub struct PageRequest {
    frame: Option<Frame>,
}

impl PageRequest {
    /// The page that is wanted.
    pub fn index(&self) -> PageIndex {
        todo!()
    }

    /// Gives the request its frame.
    pub fn attach(&mut self, frame: Frame) {
        self.frame = Some(frame);
    }

    /// Where the device is to write, once a frame is attached.
    pub fn frame_address(&self) -> Option<PhysAddr> {
        self.frame.as_ref().map(Frame::address)
    }

    /// The attached frame, to be filled by the processor.
    pub fn frame_mut(&mut self) -> Option<&mut Frame> {
        self.frame.as_mut()
    }

    /// Ends the load.
    pub fn complete(self, result: Result<(), PageError>) {
        let _ = result;
        todo!()
    }
}
