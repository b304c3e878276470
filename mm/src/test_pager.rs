//! A pager that does as it is told.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::{Memory, PageError, PageIndex, PageRequest, Pager};

/// What a page of the pager's store contains: given its index, fills its bytes.
pub type Content = Box<dyn Fn(PageIndex, &mut [u8]) + Send + Sync>;

/// A pager whose loads complete when the test says so.
pub struct TestPager {}

impl TestPager {
    /// A pager that completes each load at once.
    pub fn new(memory: &'static Memory, content: Content) -> Arc<Self> {
        let _ = (memory, content);
        todo!()
    }
    /// From now on loads are kept.
    pub fn hold(&self) {
        todo!()
    }
    /// Completes the kept load of one page; false when there is none.
    pub fn release(&self, index: PageIndex) -> bool {
        let _ = index;
        todo!()
    }
    /// Completes all kept loads and keeps no more; returns how many there were.
    pub async fn release_all(&self) -> usize {
        todo!()
    }
    /// The next `times` loads of a page (`None`: of any page) fail with `error`.
    pub fn fail(&self, index: Option<PageIndex>, times: usize, error: PageError) {
        let _ = (index, times, error);
        todo!()
    }
    /// Loads that were asked for so far.
    pub fn loads(&self) -> usize {
        todo!()
    }
    /// Loads that are kept now.
    pub fn held(&self) -> usize {
        todo!()
    }
}

impl Pager for TestPager {
    fn name(&self) -> &str {
        "test"
    }
    fn load(&self, request: PageRequest) {
        drop(request);
        todo!()
    }
}
