//! Routes, and what surrounds every one of them: the key, the call log, the counters, the envelope.

use super::reply::{Outcome, bare, plain, respond};
use super::request::{Ctx, parse_query};
use super::service::Call;
use super::{
    aliases, collections, download, points, query, read, recover, reply, service, snapshots, telemetry,
};
use super::{node::Node, reply::Handled};
use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use futures::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use std::sync::Arc;
use std::time::Instant;

/// Marks a response that must not be sent: the connection is dropped instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct DropConnection;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Needs no key.
    Open,
    /// Any key.
    Read,
    /// The read-write key.
    Write,
    /// The read-write key, but with `wait=false` the refusal is only logged.
    WriteJob,
    /// The read-write key, looked at before the body is.
    WriteEarly,
}

type Handler = fn(Ctx) -> BoxFuture<'static, Handled>;

#[derive(Clone, Copy)]
struct Route {
    method: MethodFilter,
    path: &'static str,
    access: Access,
    handler: Handler,
}

macro_rules! route {
    ($method:ident $path:literal $access:ident $handler:path) => {
        Route {
            method: MethodFilter::$method,
            path: $path,
            access: Access::$access,
            handler: |ctx| Box::pin($handler(ctx)),
        }
    };
}

const ROUTES: [Route; 40] = [
    route!(GET "/" Open service::root),
    route!(GET "/healthz" Open service::healthz),
    route!(GET "/livez" Open service::healthz),
    route!(GET "/readyz" Open service::readyz),
    route!(GET "/metrics" Read telemetry::metrics),
    route!(GET "/telemetry" Read telemetry::telemetry),
    route!(GET "/cluster" Read service::cluster),
    route!(GET "/collections" Read collections::list),
    route!(GET "/collections/{collection_name}" Read collections::get),
    route!(PUT "/collections/{collection_name}" Write collections::create),
    route!(PATCH "/collections/{collection_name}" Write collections::update),
    route!(DELETE "/collections/{collection_name}" Write collections::delete),
    route!(GET "/collections/{collection_name}/exists" Read collections::exists),
    route!(PUT "/collections/{collection_name}/index" Write collections::create_index),
    route!(DELETE "/collections/{collection_name}/index/{field_name}" Write collections::delete_index),
    route!(GET "/aliases" Read aliases::list),
    route!(GET "/collections/{collection_name}/aliases" Read aliases::list_of_collection),
    route!(POST "/collections/aliases" Write aliases::update),
    route!(PUT "/collections/{collection_name}/points" Write points::upsert),
    route!(POST "/collections/{collection_name}/points" Read read::retrieve),
    route!(GET "/collections/{collection_name}/points/{id}" Read read::get),
    route!(POST "/collections/{collection_name}/points/delete" Write points::delete),
    route!(POST "/collections/{collection_name}/points/payload" Write points::set_payload),
    route!(PUT "/collections/{collection_name}/points/payload" Write points::overwrite_payload),
    route!(POST "/collections/{collection_name}/points/payload/delete" Write points::delete_payload),
    route!(POST "/collections/{collection_name}/points/payload/clear" Write points::clear_payload),
    route!(PUT "/collections/{collection_name}/points/vectors" Write points::update_vectors),
    route!(POST "/collections/{collection_name}/points/vectors/delete" Write points::delete_vectors),
    route!(POST "/collections/{collection_name}/points/scroll" Read read::scroll),
    route!(POST "/collections/{collection_name}/points/count" Read read::count),
    route!(POST "/collections/{collection_name}/points/query" Read query::query),
    route!(POST "/collections/{collection_name}/points/query/batch" Read query::query_batch),
    route!(POST "/collections/{collection_name}/points/search" Read query::search),
    route!(POST "/collections/{collection_name}/points/search/batch" Read query::search_batch),
    route!(GET "/snapshots" Read snapshots::list_full),
    route!(GET "/collections/{collection_name}/snapshots" Read snapshots::list),
    route!(POST "/collections/{collection_name}/snapshots" WriteJob snapshots::create),
    route!(GET "/collections/{collection_name}/snapshots/{snapshot_name}" Read download::download),
    route!(DELETE "/collections/{collection_name}/snapshots/{snapshot_name}" WriteJob snapshots::delete),
    route!(PUT "/collections/{collection_name}/snapshots/recover" WriteJob recover::recover),
];

const UPLOAD: Route =
    route!(POST "/collections/{collection_name}/snapshots/upload" WriteEarly recover::upload);

pub(super) fn build(node: &Arc<Node>) -> Router {
    let mut router = Router::new();
    for route in ROUTES.into_iter().chain([UPLOAD]) {
        let node = Arc::clone(node);
        let handler =
            move |params: Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>,
                  request: Request| async move { serve(node, route, params.ok(), request).await };
        router = router.route(route.path, on(route.method, handler));
    }
    let unknown = Arc::clone(node);
    let not_allowed = Arc::clone(node);
    router
        .fallback(move |request: Request| async move { nowhere(&unknown, &request) })
        .method_not_allowed_fallback(move |request: Request| async move { nowhere(&not_allowed, &request) })
}

async fn serve(node: Arc<Node>, route: Route, params: Option<RawPathParams>, request: Request) -> Response {
    if request.method() == Method::HEAD {
        // Only here does a GET route take these too.
        return nowhere(&node, &request);
    }
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let number = node.calls.begin(call(&method, parts.uri.path(), &query, route.path));
    let ctx = Ctx {
        node: Arc::clone(&node),
        params: params.iter().flatten().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        query: parse_query(&query),
        headers: parts.headers,
        body,
    };
    let response = match admit(&node, route.access, &ctx) {
        Ok(true) => respond((route.handler)(ctx).await, started),
        Ok(false) => respond(Ok(Outcome::Accepted), started),
        Err(Refused::Unauthorized(why)) => Some(bare(StatusCode::UNAUTHORIZED, why)),
        Err(Refused::Forbidden) => {
            let error = reply::ApiError::forbidden("Global manage access is required");
            // An upload is refused before its body is read, and outside the envelope.
            if route.access == Access::WriteEarly {
                Some(plain(&error))
            } else {
                respond(Err(error), started)
            }
        }
    };
    let Some(response) = response else {
        let mut dropped = Response::new(Body::empty());
        dropped.extensions_mut().insert(DropConnection);
        return dropped;
    };
    let status = response.status().as_u16();
    node.calls.end(number, status);
    node.counters.rest(method.as_str(), route.path, status, started.elapsed());
    response
}

/// There is no such route: 404 for whoever has a key, 401 for everybody else.
fn nowhere(node: &Node, request: &Request) -> Response {
    let started = Instant::now();
    let query = request.uri().query().unwrap_or_default();
    let number = node.calls.begin(call(request.method(), request.uri().path(), query, ""));
    let response = match identify(node, request.headers()) {
        Ok(_) => StatusCode::NOT_FOUND.into_response(),
        Err(why) => bare(StatusCode::UNAUTHORIZED, why),
    };
    node.counters.rest(request.method().as_str(), "unknown", response.status().as_u16(), started.elapsed());
    node.calls.end(number, response.status().as_u16());
    response
}

fn call(method: &Method, path: &str, query: &str, route: &str) -> Call {
    Call {
        method: method.to_string(),
        path: path.to_owned(),
        query: query.to_owned(),
        route: route.to_owned(),
        status: None,
    }
}

enum Refused {
    Unauthorized(&'static str),
    Forbidden,
}

/// Whether to run the handler; `Ok(false)` is the job that is accepted and never done.
fn admit(node: &Node, access: Access, ctx: &Ctx) -> Result<bool, Refused> {
    if access == Access::Open {
        return Ok(true);
    }
    let key = identify(node, &ctx.headers).map_err(Refused::Unauthorized)?;
    let waits = ctx.query.get("wait").is_none_or(|wait| wait != "false");
    match (key, access) {
        (Key::ReadOnly, Access::WriteJob) if !waits => Ok(false),
        (Key::ReadOnly, Access::Write | Access::WriteJob | Access::WriteEarly) => Err(Refused::Forbidden),
        (Key::ReadWrite, _) | (Key::ReadOnly, Access::Open | Access::Read) => Ok(true),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    ReadWrite,
    ReadOnly,
}

/// Whose key came with the request. Without any key configured everybody may do everything.
fn identify(node: &Node, headers: &HeaderMap) -> Result<Key, &'static str> {
    let settings = &node.settings;
    if settings.api_key.is_none() && settings.read_only_key.is_none() {
        return Ok(Key::ReadWrite);
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let given = header("api-key")
        .or_else(|| header("authorization").and_then(|value| value.strip_prefix("Bearer ")))
        .ok_or("Must provide an API key or an Authorization bearer token")?;
    if settings.api_key.as_deref() == Some(given) {
        Ok(Key::ReadWrite)
    } else if settings.read_only_key.as_deref() == Some(given) {
        Ok(Key::ReadOnly)
    } else {
        Err("Invalid API key or JWT")
    }
}

/// The path without a trailing slash: the server ignores those.
pub(super) fn trimmed(uri: &http::Uri) -> Option<http::Uri> {
    let path = uri.path();
    let short = path.trim_end_matches('/');
    if short.len() == path.len() || short.is_empty() {
        return None;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{short}{query}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::request::percent_decode;
    use super::*;

    #[test]
    fn trailing_slashes_are_ignored() {
        let trim = |uri: &str| trimmed(&uri.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(trim("/collections/?a=b").as_deref(), Some("/collections?a=b"));
        assert_eq!(trim("/"), None);
        assert_eq!(trim("/readyz"), None);
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(percent_decode("a%20b%C3%BC%2"), "a bü%2");
        assert_eq!(parse_query("wait=false&x=%26")["x"], "&");
    }
}
