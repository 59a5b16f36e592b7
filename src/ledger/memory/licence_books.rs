//! What is to be remembered about licences, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryLedger;
use crate::error::Result;
use crate::ledger::{FeedPosition, IssuedLicence, LicenceBooks, Revocation};
use crate::payment::{ClientPubkey, Timestamp};

/// By issuer and name.
#[derive(Debug, Default)]
pub(super) struct Licences {
    revoked: BTreeMap<(String, String), Timestamp>,
    positions: HashMap<String, FeedPosition>,
    holders: HashMap<(String, String), BTreeSet<ClientPubkey>>,
    issued: BTreeMap<String, IssuedLicence>,
}

#[async_trait]
impl LicenceBooks for MemoryLedger {
    async fn note_revoked(&self, issuer: &str, revoked: Vec<Revocation>) -> Result<()> {
        let mut licences = self.licences();
        for Revocation { id, expires_at } in revoked {
            let held = licences
                .revoked
                .entry((issuer.to_owned(), id))
                .or_insert(expires_at);
            *held = expires_at.max(*held);
        }
        Ok(())
    }

    async fn revoked(
        &self,
        issuer: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revocation>> {
        let from = match after {
            Some(after) => Bound::Excluded((issuer.to_owned(), after.to_owned())),
            None => Bound::Included((issuer.to_owned(), String::new())),
        };
        let listed = self
            .licences()
            .revoked
            .range((from, Bound::Unbounded))
            .take_while(|((of, _), _)| of == issuer)
            .take(limit)
            .map(|((_, id), expires_at)| Revocation {
                id: id.clone(),
                expires_at: *expires_at,
            })
            .collect();
        Ok(listed)
    }

    async fn forget_revoked(&self, before: Timestamp) -> Result<usize> {
        let mut licences = self.licences();
        let known = licences.revoked.len();
        licences
            .revoked
            .retain(|_, expires_at| *expires_at >= before);
        Ok(known - licences.revoked.len())
    }

    async fn set_position(&self, issuer: &str, position: FeedPosition) -> Result<()> {
        self.licences()
            .positions
            .insert(issuer.to_owned(), position);
        Ok(())
    }

    async fn position(&self, issuer: &str) -> Result<Option<FeedPosition>> {
        Ok(self.licences().positions.get(issuer).cloned())
    }

    async fn admit_holder(
        &self,
        issuer: &str,
        id: &str,
        client: ClientPubkey,
        most: usize,
    ) -> Result<bool> {
        let mut licences = self.licences();
        let holders = licences
            .holders
            .entry((issuer.to_owned(), id.to_owned()))
            .or_default();
        if holders.len() < most {
            holders.insert(client);
        }
        Ok(holders.contains(&client))
    }

    async fn note_issued(&self, licence: IssuedLicence) -> Result<IssuedLicence> {
        let mut licences = self.licences();
        let known = licences.issued.entry(licence.id.clone());
        Ok(known.or_insert(licence).clone())
    }

    async fn take_back(&self, id: &str, at: Timestamp) -> Result<Option<IssuedLicence>> {
        let mut licences = self.licences();
        let before = licences.issued.values().filter(|l| l.revoked.is_some());
        let nth = before.count() as u64 + 1;
        Ok(licences.issued.get_mut(id).map(|licence| {
            licence.revoked.get_or_insert((at, nth));
            licence.clone()
        }))
    }

    async fn issued(&self, after: Option<&str>, limit: usize) -> Result<Vec<IssuedLicence>> {
        let licences = self.licences();
        let listed = licences
            .issued
            .values()
            .filter(|licence| after.is_none_or(|after| licence.id.as_str() > after))
            .take(limit);
        Ok(listed.cloned().collect())
    }

    async fn taken_back(&self, after: u64, limit: usize) -> Result<Vec<IssuedLicence>> {
        let nth = |licence: &IssuedLicence| licence.revoked.map_or(0, |(_, nth)| nth);
        let mut listed: Vec<IssuedLicence> = self
            .licences()
            .issued
            .values()
            .filter(|licence| nth(licence) > after)
            .cloned()
            .collect();
        listed.sort_by_key(nth);
        listed.truncate(limit);
        Ok(listed)
    }
}
