//! What users of this crate, and authors of rails, test with. Time is meant to be paused (`tokio::time::pause`): nothing
//! here sleeps on the wall clock.

mod clock;
mod failing_ledger;
mod harness;
mod scripted_handler;
mod scripted_processor;

pub use clock::TestClock;
pub use failing_ledger::{FailingLedger, LedgerFault};
pub use harness::{Answer, Execution, Harness, HarnessBuilder, RawClient, Survivors};
pub use scripted_handler::{HandlerControl, HandlerScript, ScriptedHandler};
pub use scripted_processor::{
    ListScript, LookupScript, MintScript, ProcessorControl, RailEvent, ScriptedProcessor,
};
