//! What is typed after `licence`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(in crate::gateway) struct LicenceArgs {
    #[command(subcommand)]
    pub(in crate::gateway) command: LicenceCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::gateway) enum LicenceCommand {
    /// Issue a licence to one client, and print it
    Issue {
        #[command(flatten)]
        file: LicenceFile,
        /// The client that alone can use it (npub or hex)
        #[arg(long, value_name = "KEY")]
        client: String,
        /// For how many days
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// What it is good for, such as 'tool:*'; may be repeated [default: everything]
        #[arg(long, value_name = "CAPABILITY")]
        covers: Vec<String>,
        /// Sign it with the server's own key, so that anybody can verify it
        #[arg(long)]
        public: bool,
    },
    /// Take a licence back
    Revoke {
        /// Its name
        id: String,
        #[command(flatten)]
        file: LicenceFile,
    },
    /// List the licences that were issued
    List {
        #[command(flatten)]
        file: LicenceFile,
    },
    /// Make a new signing key; licences of earlier keys still count
    Rotate {
        #[command(flatten)]
        file: LicenceFile,
    },
    /// Verify a public licence, of any server: offline, or with a relay also whether it was taken back
    Verify(VerifyLicenceArgs),
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct VerifyLicenceArgs {
    /// The file with the licence
    pub(in crate::gateway) file: PathBuf,
    /// The server that it must be for (npub, nprofile or hex) [default: the one that signed it]
    #[arg(long, value_name = "SERVER")]
    pub(in crate::gateway) server: Option<String>,
    /// The client that it must be for (npub or hex) [default: the one that it names]
    #[arg(long, value_name = "KEY")]
    pub(in crate::gateway) client: Option<String>,
    /// A relay of the server, to ask whether the licence was taken back; may be repeated
    #[arg(long = "relay", value_name = "URL")]
    pub(in crate::gateway) relays: Vec<String>,
    /// How long the relays may take, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::gateway) timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct LicenceFile {
    /// The file of the server's ledger [default: tollkeeper.db]
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) ledger: Option<PathBuf>,
    /// A file with the server's secret key (nsec or hex) [default: beside the ledger]
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) secret_key_file: Option<PathBuf>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}
