//! The command line as it is typed. Nothing here does I/O; what the words mean together is decided in
//! [`config`](super::config) and in the commands.
//!
//! Secrets have no flags: whoever lists processes would see them.

mod books;
mod buying;
mod development;
mod licences;
mod selling;
mod wallet;

use clap::{Parser, Subcommand};

pub(super) use self::books::{
    ExportArgs, ExportAs, LedgerArgs, LedgerCommand, LedgerFile, ReceiptsArgs, ReceiptsCommand,
    ReportArgs, SpendingArgs, SpendingCommand, WalletsArgs,
};
pub(super) use self::buying::{
    CallArgs, ConnectArgs, DiscoverArgs, InspectArgs, LinkArgs, PayingArgs, PolicyArgs, ServerArgs,
};
pub(super) use self::development::{DemoArgs, FakeWalletArgs, RelayArgs, WalletCommand};
pub(super) use self::licences::{LicenceArgs, LicenceCommand, LicenceFile, VerifyLicenceArgs};
pub(super) use self::selling::{
    CheckArgs, LnbitsWebhookArgs, RateArgs, SellingArgs, ServeArgs, StripeArgs,
};
pub(super) use self::wallet::{LnbitsArgs, WalletArgs};

/// Sell any MCP server over Nostr relays, and buy from one.
#[derive(Debug, Parser)]
#[command(name = "tollkeeper", version, about, max_term_width = 100)]
pub(super) struct Cli {
    /// What to log on stderr: a level (error, warn, info, debug, trace) or a filter
    #[arg(long, global = true, value_name = "FILTER", env = "TOLLKEEPER_LOG")]
    pub(super) log: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show a paid call end to end in one process: a relay, a paid server, a paying client
    Demo(DemoArgs),
    /// Sell a stdio MCP server
    Serve(Box<ServeArgs>),
    /// Offer a paid remote server as a local stdio MCP server
    Connect(ConnectArgs),
    /// Make one call, paid if the budget allows
    Call(CallArgs),
    /// Show what a server offers, for how much, and how it is paid
    Inspect(InspectArgs),
    /// Show which servers announce themselves on relays, and their prices
    Discover(DiscoverArgs),
    /// Run a relay for development
    Relay(RelayArgs),
    /// Run wallets for development
    Wallet {
        #[command(subcommand)]
        command: WalletCommand,
    },
    /// Show which rule prices what, and what is left free
    Check(CheckArgs),
    /// Issue, list and take back licences of our own
    Licence(LicenceArgs),
    /// Read the books
    Ledger(LedgerArgs),
    /// Show what was spent, and what is held for payments whose outcome is unknown
    Spending(SpendingArgs),
    /// List, verify and hand out receipts of what was paid
    Receipts(ReceiptsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn flags(command: &clap::Command, out: &mut Vec<String>) {
            out.extend(
                command
                    .get_arguments()
                    .filter_map(|arg| arg.get_long().map(str::to_owned)),
            );
            command.get_subcommands().for_each(|sub| flags(sub, out));
        }
        let mut all = Vec::new();
        flags(&Cli::command(), &mut all);
        for flag in all {
            let secret = ["secret-key", "nsec", "nwc", "token", "password"];
            assert!(!secret.contains(&flag.as_str()), "{flag}");
        }
    }
}
