//! The feed of what we issued and took back ourselves: read from the books, where `tollkeeper licence revoke` writes it.

use std::sync::Arc;

use async_trait::async_trait;

use super::feed::{FeedPage, RevocationFeed};
use crate::error::Result;
use crate::ledger::{LicenceBooks, Revocation};

/// Licences on one page.
const PAGE: usize = 1000;

/// Reads revocations of our own licences.
#[derive(Debug, Clone)]
pub struct OwnFeed(Arc<dyn LicenceBooks>);

impl OwnFeed {
    /// Those in `books`.
    #[must_use]
    pub fn new(books: Arc<dyn LicenceBooks>) -> Self {
        Self(books)
    }
}

#[async_trait]
impl RevocationFeed for OwnFeed {
    async fn page(&self, since: &str) -> Result<FeedPage> {
        // The first question names a moment; all that were ever taken back are the answer.
        let after = since.parse().unwrap_or(0);
        let taken = self.0.taken_back(after, PAGE).await?;
        let last = taken.last().and_then(|licence| licence.revoked);
        Ok(FeedPage {
            next: Some(last.map_or(after, |(_, nth)| nth).to_string()),
            revoked: taken
                .into_iter()
                .map(|licence| Revocation {
                    id: licence.id,
                    expires_at: licence.expires_at,
                })
                .collect(),
            server_time: None,
        })
    }
}
