//! What is typed to read the books: `ledger`, `spending` and `receipts`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

use super::wallet::WalletArgs;
use crate::client::ledger::AttemptId;
use crate::client::ledger::AttemptState;

#[derive(Debug, Args)]
pub(in crate::gateway) struct LedgerArgs {
    #[command(subcommand)]
    pub(in crate::gateway) command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::gateway) enum LedgerCommand {
    /// List entries, oldest first
    List {
        #[command(flatten)]
        file: LedgerFile,
        /// Only entries in this state; may be repeated
        #[arg(long, value_name = "STATE", action = ArgAction::Append)]
        state: Vec<crate::ledger::EntryState>,
    },
    /// List priced calls that were not paid for, and why, oldest first
    Free {
        #[command(flatten)]
        file: LedgerFile,
        /// Only this client (npub or hex)
        #[arg(long, value_name = "KEY")]
        client: Option<String>,
    },
    /// List what clients have paid ahead, or how the account of one client moved
    Balance {
        #[command(flatten)]
        file: LedgerFile,
        /// The statement of this client (npub or hex)
        #[arg(long, value_name = "KEY")]
        client: Option<String>,
        /// In this unit
        #[arg(long, value_name = "UNIT", default_value = "sats")]
        unit: crate::payment::Unit,
    },
    /// Add up what came in, by capability, client, rail and day
    Report(ReportArgs),
    /// Write out every priced call, for other programs
    Export(ExportArgs),
    /// Tell the story of one payment, or why a call was free
    Show {
        /// The event id of the request that was to be paid, or of the one that was executed; its first 8 digits are enough
        id: String,
        #[command(flatten)]
        file: LedgerFile,
    },
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct ReportArgs {
    #[command(flatten)]
    pub(in crate::gateway) file: LedgerFile,
    /// What to tell apart: capability, client, rail, day; several with commas [default: capability,rail]
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = revenue_by)]
    pub(in crate::gateway) by: Vec<crate::ledger::RevenueBy>,
    /// Only what came in on this day or later, in UTC
    #[arg(long, value_name = "DAY", value_parser = crate::gateway::commands::day)]
    pub(in crate::gateway) since: Option<crate::payment::Timestamp>,
    /// Only what came in on this day or earlier, in UTC
    #[arg(long, value_name = "DAY", value_parser = crate::gateway::commands::day)]
    pub(in crate::gateway) until: Option<crate::payment::Timestamp>,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct ExportArgs {
    #[command(flatten)]
    pub(in crate::gateway) file: LedgerFile,
    /// json (one object per line) or csv
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub(in crate::gateway) format: ExportAs,
    /// Only calls of this day or later, in UTC
    #[arg(long, value_name = "DAY", value_parser = crate::gateway::commands::day)]
    pub(in crate::gateway) since: Option<crate::payment::Timestamp>,
    /// Only calls of this day or earlier, in UTC
    #[arg(long, value_name = "DAY", value_parser = crate::gateway::commands::day)]
    pub(in crate::gateway) until: Option<crate::payment::Timestamp>,
}

/// How calls are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::gateway) enum ExportAs {
    Json,
    Csv,
}

fn revenue_by(word: &str) -> Result<crate::ledger::RevenueBy, String> {
    let mut all = crate::ledger::RevenueBy::ALL.into_iter();
    all.find(|by| by.as_str() == word)
        .ok_or_else(|| "must be capability, client, rail or day".to_owned())
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct LedgerFile {
    /// The file of the ledger, or postgres://USER@HOST/DATABASE [env: TOLLKEEPER_LEDGER] [default: tollkeeper.db]
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) ledger: Option<PathBuf>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct SpendingArgs {
    #[command(subcommand)]
    pub(in crate::gateway) command: Option<SpendingCommand>,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::gateway) enum SpendingCommand {
    /// List payments, oldest first
    List {
        /// Only payments in this state (reserved, paid, refused, unknown); may be repeated
        #[arg(long, value_name = "STATE", action = ArgAction::Append)]
        state: Vec<AttemptState>,
    },
    /// Ask the wallets what became of payments whose outcome is unknown; no money moves
    Resolve {
        #[command(flatten)]
        wallets: WalletsArgs,
    },
    /// Write down what became of a payment that no wallet can tell about
    Decide {
        /// The number of the payment
        payment: AttemptId,
        /// What became of it: paid or refused
        #[arg(value_name = "paid|refused")]
        outcome: AttemptState,
    },
    /// Put up with what a server took without a result: it may be paid again
    Forgive {
        /// The server: npub, nprofile or hex
        server: String,
    },
}

/// Which wallets may be asked.
#[derive(Debug, Args)]
pub(in crate::gateway) struct WalletsArgs {
    #[command(flatten)]
    pub(in crate::gateway) wallet: WalletArgs,
    /// Ask the fake rail, which is not money
    #[arg(long)]
    pub(in crate::gateway) allow_fake: bool,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct ReceiptsArgs {
    #[command(subcommand)]
    pub(in crate::gateway) command: ReceiptsCommand,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::gateway) enum ReceiptsCommand {
    /// List receipts, oldest first
    List,
    /// Show one receipt, without its proof
    Show {
        /// The number of the payment, or a file
        receipt: String,
    },
    /// Verify receipts offline, and say what is proven and what is not; all of them unless some are named
    Verify {
        /// The number of a payment, or a file
        receipts: Vec<String>,
    },
    /// Print receipts as JSON, to hand out; all of them unless some are named
    Export {
        /// The number of a payment, or a file
        receipts: Vec<String>,
        /// With the proof of payment, which is a secret
        #[arg(long)]
        with_proof: bool,
        /// With what was asked and what was answered
        #[arg(long)]
        with_contents: bool,
    },
}
