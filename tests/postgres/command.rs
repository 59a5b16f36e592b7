//! The binary with a ledger in PostgreSQL; and a connection that is encrypted.

use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Output, Stdio};

use tollkeeper::ledger::{EntryFilter, Ledger, PostgresConfig, PostgresLedger};
use tollkeeper::payment::PaymentInteraction;

use super::{LIMITS, PASSWORD, Postgres, new, open, paid};

fn tollkeeper(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollkeeper"));
    for name in [
        "TOLLKEEPER_LEDGER",
        "PGPASSWORD",
        "TOLLKEEPER_SECRET_KEY",
        "TOLLKEEPER_RELAYS",
    ] {
        command.env_remove(name);
    }
    command
        .args(words)
        .envs(environment.iter().copied())
        .env("TOLLKEEPER_HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_are_read_with_the_password_of_the_environment() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    paid(&*open(&url).await, 1).await;
    let list = ["ledger", "list", "--json", "--ledger", &url];
    let listed = tollkeeper(&list, &[("PGPASSWORD", PASSWORD)]);
    assert!(listed.status.success(), "{}", said(&listed));
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 1);

    // The whole URL may hold the password, where nobody else reads it.
    let escaped = PASSWORD
        .replace(' ', "%20")
        .replace(':', "%3A")
        .replace('@', "%40")
        .replace('&', "%26");
    let whole = url.replace("toll@", &format!("toll:{escaped}@"));
    let listed = tollkeeper(
        &["ledger", "list", "--json"],
        &[("TOLLKEEPER_LEDGER", &whole)],
    );
    assert!(listed.status.success(), "{}", said(&listed));

    let refused = tollkeeper(&list, &[("PGPASSWORD", "wrong")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("check user and password"),
        "{}",
        said(&refused)
    );
}

#[test]
fn serve_wants_one_key_and_no_password_on_its_command_line() {
    let serve = |ledger: &str, environment: &[(&str, &str)]| {
        let words = [
            "serve",
            "--allow-fake",
            "--relay",
            "ws://127.0.0.1:1",
            "--price",
            "tool:a=7 sat",
            "--ledger",
            ledger,
            "--",
            "true",
        ];
        tollkeeper(&words, environment)
    };
    let refused = serve("postgres://toll:sesame@127.0.0.1:1/toll", &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("PGPASSWORD") && said(&refused).contains("TOLLKEEPER_LEDGER"));
    assert!(!said(&refused).contains("sesame"));

    let refused = serve("postgres://toll@127.0.0.1:1/toll", &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("secret_key_file"),
        "{}",
        said(&refused)
    );

    let key = "7".repeat(64);
    let failed = serve(
        "postgres://toll@127.0.0.1:1/toll",
        &[("TOLLKEEPER_SECRET_KEY", &key)],
    );
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(
        said(&failed).contains("cannot be reached"),
        "{}",
        said(&failed)
    );
}

/// A certificate for 127.0.0.1, and its key, readable by the server.
fn certificate(folder: &std::path::Path) -> Option<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        return super::postgres::skipped("openssl makes no certificate");
    }
    // The server runs as nobody where this is root; elsewhere that fails, and it runs as we do.
    let _ = chown(&key, Some(65534), Some(65534));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_connection_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    if certificate(folder.path()).is_none() {
        return;
    }
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("cert.pem"));
    let settings = [
        "-c".to_owned(),
        "ssl=on".to_owned(),
        "-c".to_owned(),
        format!("ssl_key_file={key}"),
        "-c".to_owned(),
        format!("ssl_cert_file={certificate}"),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let Some(server) = Postgres::start_with(&settings) else {
        return;
    };
    let url = server.database();
    let config = |url: &str| PostgresConfig::parse(url).unwrap().password(PASSWORD);
    let known = config(&format!("{url}?sslrootcert={certificate}"));
    let ledger = PostgresLedger::open(&known).await.unwrap();
    ledger
        .open(new(1, PaymentInteraction::Transparent), LIMITS)
        .await
        .unwrap();
    assert_eq!(
        ledger
            .list(&EntryFilter::new(vec![], 10))
            .await
            .unwrap()
            .len(),
        1
    );
    let encrypted = server.query(
        url.rsplit('/').next().unwrap(),
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'tollkeeper'",
    );
    assert_ne!(encrypted[0], "0");

    // Nobody whom we do not know is told the password.
    let unknown = PostgresLedger::open(&config(&format!("{url}?sslmode=require"))).await;
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("cannot be reached")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_encrypt_is_not_talked_to_in_clear() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = format!("{}?sslmode=require", server.database());
    let config = PostgresConfig::parse(&url).unwrap().password(PASSWORD);
    PostgresLedger::open(&config).await.unwrap_err();
}
