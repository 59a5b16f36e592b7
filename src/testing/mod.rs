//! What users of this crate, and authors of rails, test with. Time is meant to be paused (`tokio::time::pause`): nothing
//! here sleeps on the wall clock.

mod clock;
mod failing_ledger;
mod harness;
mod hostile_server;
mod scripted_asker;
mod scripted_handler;
mod scripted_mandates;
mod scripted_processor;

pub use clock::TestClock;
pub use failing_ledger::{FailingLedger, LedgerFault};
pub use harness::{Answer, Execution, Harness, HarnessBuilder, RawClient, Survivors};
pub use hostile_server::{HostileServer, Victim, pay_req_asking};
pub use scripted_asker::{AskerControl, ScriptedAsker};
pub use scripted_handler::{HandlerControl, HandlerScript, LookUpScript, ScriptedHandler};
pub use scripted_mandates::{MandateControl, MandateScript, ScriptedMandates};
pub use scripted_processor::{
    ListScript, LookupScript, MintScript, ProcessorControl, RailEvent, ScriptedProcessor,
};
