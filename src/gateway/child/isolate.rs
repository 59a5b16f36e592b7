//! One child per client, and a bound on how many.
//!
//! A child that has nothing to do leaves after a while, and earlier when another client needs its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::catalogue::Catalogue;
use super::deliveries::Deliveries;
use super::load::Load;
use super::worker::{Job, Setup};
use super::{ChildCommand, Running, client_of};
use crate::payment::ClientPubkey;
use crate::transport::Outbound;
use crate::wire::{ErrorObject, Message, Response, SERVER_ERROR_CODE};

/// How children are kept apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Isolation {
    /// How many children may run at a time.
    pub(crate) most: usize,
    /// How long a child may have nothing to do.
    pub(crate) idle: Duration,
}

#[derive(Debug)]
pub(super) struct Pool {
    isolation: Isolation,
    command: Arc<ChildCommand>,
    deliveries: Deliveries,
    catalogue: watch::Sender<Arc<Catalogue>>,
    children: HashMap<ClientPubkey, Member>,
    leaving: TaskTracker,
}

#[derive(Debug)]
struct Member {
    running: Running,
    used: Instant,
}

impl Pool {
    pub(super) fn new(
        isolation: Isolation,
        command: Arc<ChildCommand>,
        deliveries: Deliveries,
        catalogue: watch::Sender<Arc<Catalogue>>,
    ) -> Self {
        Self {
            isolation,
            command,
            deliveries,
            catalogue,
            children: HashMap::new(),
            leaving: TaskTracker::new(),
        }
    }

    /// Hands a message to the child of its client. One client with a full inbox is refused rather than waited for.
    pub(super) async fn dispatch(&mut self, job: Job) {
        self.retire_idle();
        let client = client_of(&job.reply_to);
        let is_request = matches!(job.message, Message::Request(_));
        if !self.children.contains_key(&client) {
            // What is only said, not asked, starts nothing.
            if !is_request {
                return;
            }
            if !self.make_room() {
                self.refuse(job).await;
                return;
            }
            self.add(client);
        }
        let Some(member) = self.children.get_mut(&client) else {
            return;
        };
        member.used = Instant::now();
        if is_request {
            member.running.load.add();
        }
        if let Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) =
            member.running.inbox.try_send(job)
        {
            if is_request {
                member.running.load.done();
            }
            self.refuse(job).await;
        }
    }

    /// Waits until no child has anything to do.
    pub(super) async fn idle(&self) {
        for member in self.children.values() {
            member.running.load.idle().await;
        }
    }

    pub(super) async fn finish(mut self) {
        for (_, member) in self.children.drain() {
            self.leaving.spawn(member.running.finish());
        }
        self.leaving.close();
        self.leaving.wait().await;
    }

    fn add(&mut self, client: ClientPubkey) {
        debug!(client = %client.short(), "a child is started for a client");
        let setup = Setup {
            command: Arc::clone(&self.command),
            deliveries: self.deliveries.clone(),
            only: Some(client),
            catalogue: self.catalogue.clone(),
            load: Load::new(),
            stop: CancellationToken::new(),
        };
        let member = Member {
            running: Running::start(setup, None),
            used: Instant::now(),
        };
        self.children.insert(client, member);
    }

    /// Lets those go that had nothing to do for long.
    pub(super) fn retire_idle(&mut self) {
        let idle: Vec<ClientPubkey> = self
            .children
            .iter()
            .filter(|(_, member)| member.is_free() && member.used.elapsed() >= self.isolation.idle)
            .map(|(client, _)| *client)
            .collect();
        for client in idle {
            self.retire(&client);
        }
    }

    /// Makes room for one more child, by letting go the one that has had nothing to do for longest.
    fn make_room(&mut self) -> bool {
        if self.children.len() < self.isolation.most {
            return true;
        }
        let longest = self
            .children
            .iter()
            .filter(|(_, member)| member.is_free())
            .min_by_key(|(_, member)| member.used)
            .map(|(client, _)| *client);
        match longest {
            Some(client) => {
                self.retire(&client);
                true
            }
            None => false,
        }
    }

    fn retire(&mut self, client: &ClientPubkey) {
        if let Some(member) = self.children.remove(client) {
            debug!(client = %client.short(), "the child of a client leaves");
            self.leaving.spawn(member.running.finish());
        }
    }

    async fn refuse(&self, job: Job) {
        let Message::Request(request) = job.message else {
            return;
        };
        info!(client = %job.reply_to.client.short(), "no room for another child or request");
        let error = ErrorObject::new(SERVER_ERROR_CODE, "The server is busy; try again later");
        let answer = Outbound::new(Response::from_error(request.id, &error)).handler_lost();
        self.deliveries.answer(job.reply_to, answer).await;
    }
}

impl Member {
    fn is_free(&self) -> bool {
        self.running.load.is_idle()
    }
}
