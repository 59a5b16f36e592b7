//! Keeps a handler that panics from leaving its caller without an answer.
//!
//! rmcp runs each request in a task of its own and answers when the task is done; of a task that panics it never hears
//! again.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use ::rmcp::model::{
    ClientNotification, ClientRequest, ErrorData, ProtocolVersion, ServerConfig, ServerResult,
};
use ::rmcp::service::{NotificationContext, RequestContext, Service};
use ::rmcp::{RoleServer, ServerHandler};

use super::session::{LOST, Session};

/// A handler whose panics become errors.
pub(super) struct Guarded<H> {
    pub(super) handler: H,
    pub(super) session: Arc<Session>,
}

impl<H: ServerHandler> Service<RoleServer> for Guarded<H> {
    async fn handle_request(
        &self,
        request: ClientRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let id = context.id.clone();
        let handled = async { self.handler.handle_request(request, context).await };
        match unless_it_panics(handled).await {
            Some(result) => result,
            None => {
                self.session.lost(&id);
                Err(ErrorData::internal_error(LOST, None))
            }
        }
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.handler
            .handle_notification(notification, context)
            .await
    }

    fn get_info(&self) -> ServerConfig {
        ServerHandler::get_info(&self.handler)
    }

    fn supported_protocol_versions(&self) -> std::borrow::Cow<'static, [ProtocolVersion]> {
        ServerHandler::supported_protocol_versions(&self.handler)
    }
}

/// What `future` returns; `None` if it panics. The panic itself has been reported by the panic hook.
async fn unless_it_panics<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        },
    )
    .await
}
