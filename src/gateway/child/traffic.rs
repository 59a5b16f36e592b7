//! What a worker does with each message: from clients to the child under labels of its own, and back to whom it is for.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::debug;

use super::asker::{empty, reply_to_child};
use super::catalogue::Catalogue;
use super::session::Session;
use super::worker::{Job, Worker};
use crate::payment::ClientPubkey;
use crate::transport::{Outbound, ReplyTo};
use crate::wire::{
    ErrorObject, Message, Notification, Request, RequestId, Response, SERVER_ERROR_CODE, method,
};

const UNSUBSCRIBE: &str = "resources/unsubscribe";
const UPDATED: &str = "notifications/resources/updated";

impl Worker {
    pub(super) async fn take_from_client(&mut self, job: Job, room: mpsc::Permit<'_, Message>) {
        match job.message {
            Message::Request(request) => self.request(request, job.reply_to, room).await,
            Message::Notification(notification) if notification.method == method::CANCELLED => {
                if let Some(cancelled) = self.open.cancel(&job.reply_to.client, &notification) {
                    if let Some(label) = label_of(&cancelled) {
                        self.deadlines.cancelled(label);
                    }
                    room.send(cancelled.into());
                }
            }
            // Of a shared child's session the gateway is the only owner.
            Message::Notification(notification) if self.setup.only.is_some() => {
                room.send(notification.into());
            }
            Message::Notification(_) | Message::Response(_) => {}
        }
    }

    async fn request(
        &mut self,
        request: Request,
        reply_to: ReplyTo,
        room: mpsc::Permit<'_, Message>,
    ) {
        let client = reply_to.client;
        let subscription = subscribed_uri(&request);
        let subscribes = request.method == method::RESOURCES_SUBSCRIBE;
        if let Some(uri) = &subscription
            && self.is_settled_here(client, uri, subscribes)
        {
            let answer = Outbound::new(empty(request.id));
            self.answer(reply_to, answer).await;
            return;
        }
        let id = request.id.clone();
        match self.open.open(request, reply_to.clone()) {
            Ok(labelled) => {
                if let RequestId::Number(label) = labelled.id {
                    if let Some(uri) = subscription.filter(|_| subscribes) {
                        self.subscribing.insert(label, (client, uri));
                    }
                    self.deadlines.opened(label);
                }
                room.send(labelled.into());
            }
            Err(_) => {
                let error = ErrorObject::new(
                    SERVER_ERROR_CODE,
                    "Too many requests at once; try again later",
                );
                let answer = Outbound::new(Response::from_error(id, &error)).handler_lost();
                self.answer(reply_to, answer).await;
            }
        }
    }

    /// Whether a subscription, or the end of one, changes nothing for the child, because others are subscribed too.
    fn is_settled_here(&mut self, client: ClientPubkey, uri: &str, subscribes: bool) -> bool {
        if self.setup.only.is_some() {
            return false;
        }
        if !subscribes {
            self.subscriptions.remove(&client, uri);
        }
        let settled = self.subscriptions.has(uri);
        if subscribes && settled {
            self.subscriptions.add(client, uri);
        }
        settled
    }

    pub(super) async fn take_from_child(&mut self, message: Message, session: &Session) {
        match message {
            Message::Response(response) => {
                if let Some(response) = session.asker.answer(response) {
                    self.response(response).await;
                }
            }
            Message::Request(request) => {
                // A child that floods us with requests while it reads nothing loses some answers.
                let _ = session.process.to.try_send(reply_to_child(request).into());
            }
            Message::Notification(notification) => self.notification(notification, session),
        }
    }

    async fn response(&mut self, response: Response) {
        let subscribed = self
            .forget(&response.id)
            .filter(|_| response.result().is_some());
        if let Some((client, uri)) = subscribed {
            self.subscriptions.add(client, &uri);
        }
        if let Some(answered) = self.open.answer(response) {
            self.answer(answered.reply_to, Outbound::new(answered.message))
                .await;
        } else {
            debug!("the child answered a request that is not open");
        }
    }

    /// Clears what is remembered beside an open request; what is returned is the subscription that it asked for.
    pub(super) fn forget(&mut self, id: &RequestId) -> Option<(ClientPubkey, String)> {
        let RequestId::Number(label) = id else {
            return None;
        };
        self.deadlines.ended(*label);
        self.subscribing.remove(label)
    }

    fn notification(&self, notification: Notification, session: &Session) {
        let out = &self.setup.deliveries;
        match notification.method.as_str() {
            method::PROGRESS => {
                if let Some(progress) = self.open.progress(&notification) {
                    out.progress(&progress.reply_to, progress.message);
                }
            }
            UPDATED if self.setup.only.is_none() => {
                for client in uri_of(notification.params.as_deref())
                    .map(|uri| self.subscriptions.subscribers(&uri))
                    .unwrap_or_default()
                {
                    out.broadcast(Some(client), notification.clone().into());
                }
            }
            list if list.ends_with("/list_changed") => {
                if list == "notifications/tools/list_changed" {
                    self.list_again(session);
                }
                out.broadcast(self.setup.only, notification.into());
            }
            method::CANCELLED => {}
            // All else may be about one client's call, and of a shared child nobody knows whose.
            _ if self.setup.only.is_some() => out.broadcast(self.setup.only, notification.into()),
            other => debug!(
                method = other,
                "a notification of the shared child is not passed on"
            ),
        }
    }

    fn list_again(&self, session: &Session) {
        let (asker, introduction) = (session.asker.clone(), Arc::clone(&session.introduction));
        let catalogue = self.setup.catalogue.clone();
        tokio::spawn(async move {
            let listed = Catalogue::ask(&asker, introduction.result()).await;
            catalogue.send_replace(Arc::new(listed));
        });
    }
}

fn subscribed_uri(request: &Request) -> Option<String> {
    matches!(
        request.method.as_str(),
        method::RESOURCES_SUBSCRIBE | UNSUBSCRIBE
    )
    .then(|| uri_of(request.params.as_deref()))
    .flatten()
}

fn uri_of(params: Option<&RawValue>) -> Option<String> {
    let params: Value = serde_json::from_str(params?.get()).ok()?;
    params.get("uri")?.as_str().map(str::to_owned)
}

/// The label that a translated `notifications/cancelled` names.
fn label_of(cancelled: &Notification) -> Option<i64> {
    let params: Value = serde_json::from_str(cancelled.params.as_ref()?.get()).ok()?;
    params.get("requestId")?.as_i64()
}
