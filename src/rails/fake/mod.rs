//! A rail that settles by itself. It is not money: for the demo, for development and for tests.

mod handler;
mod processor;
mod proof;

pub use handler::FakeHandler;
pub use processor::FakeProcessor;
