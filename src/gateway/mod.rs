//! The binary `tollkeeper`: what is typed becomes `args`, these and the config file become `config`, and a
//! command does the work.

// What was asked for.
mod args;
mod buying;
mod config;
mod secrets;

// What everything works with.
mod exit;
mod home;
mod keys;
mod logging;
mod output;
mod shutdown;
mod terminal;
mod ways;
mod wire_up;

// What the crash test needs.
#[cfg(feature = "testing")]
mod crash_points;

// The server that is sold.
mod call_check;
mod child;
mod entitling;
mod goods;
mod http_desk;
mod input_schema;
mod licence_http;
mod own_licences;
mod revocations;
mod stripe_shop;
mod stripe_webhook;

// One file per command.
mod commands;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};
use self::exit::{Failure, Outcome};

/// Runs the binary.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message().is_empty() {
                output::complain(failure.message());
            }
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    // A server's operator wants to know what it does, a buyer wants the result.
    let otherwise = match cli.command {
        Command::Serve(_) | Command::Relay(_) | Command::Wallet { .. } => "info",
        _ => "warn",
    };
    logging::start(cli.log.as_deref(), otherwise)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(commands::run(cli.command));
    // Whatever still runs (a read of stdin, say) must not hold up the end.
    runtime.shutdown_background();
    outcome
}
