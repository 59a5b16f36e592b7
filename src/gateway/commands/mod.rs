//! What the binary does: one file per command, each with a function `run`.

// Selling.
mod check;
mod in_sats;
mod ledger;
mod licence;
mod serve;

// Buying.
mod call;
mod connect;
mod content;
mod discover;
mod inspect;
mod offer;
mod receipts;
mod session;
mod spending;
mod target;

// Trying it out.
mod demo;
mod relay;
mod wallet;

pub(super) use self::ledger::report::day;
use super::args::Command;
use super::exit::Outcome;

/// Runs one command.
pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(&args).await,
        Command::Serve(args) => serve::run(&args).await,
        Command::Connect(args) => connect::run(&args).await,
        Command::Call(args) => call::run(&args).await,
        Command::Inspect(args) => inspect::run(&args).await,
        Command::Discover(args) => discover::run(&args).await,
        Command::Relay(args) => relay::run(&args).await,
        Command::Wallet { command } => wallet::run(&command).await,
        Command::Check(args) => check::run(&args).await,
        Command::Licence(args) => licence::run(&args.command).await,
        Command::Ledger(args) => ledger::run(&args.command).await,
        Command::Spending(args) => spending::run(&args).await,
        Command::Receipts(args) => receipts::run(&args).await,
    }
}
