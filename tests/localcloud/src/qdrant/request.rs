//! What a handler gets: the path's names, the query, the body, and the node.

use super::node::Node;
use super::reply::ApiError;
use axum::body::Body;
use http::HeaderMap;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `service.max_request_size_mb` of the shipped configuration, in bytes.
const MAX_JSON_BYTES: usize = 32 * 1024 * 1024;

pub(super) struct Ctx {
    pub(super) node: Arc<Node>,
    pub(super) params: BTreeMap<String, String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl Ctx {
    /// A name from the path, percent-decoded.
    pub(super) fn param(&self, name: &str) -> Result<String, ApiError> {
        self.params
            .get(name)
            .cloned()
            .ok_or_else(|| ApiError::deserialize("path parameters", format!("missing field `{name}`")))
    }

    /// The `{collection_name}` of the path.
    pub(super) fn collection(&self) -> Result<String, ApiError> {
        let name = self.param("collection_name")?;
        if name.is_empty() || name.len() > 255 {
            return Err(ApiError::validation(
                "path parameters",
                "collection_name: value is invalid, must be from 1 to 255 characters",
            ));
        }
        if let Some(forbidden) = name.chars().find(|c| matches!(c, '/' | '\0')) {
            return Err(ApiError::validation(
                "path parameters",
                format!("collection_name: collection name cannot contain \"{forbidden}\" char"),
            ));
        }
        Ok(name)
    }

    /// A boolean of the query string.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.query.get(name).map(String::as_str) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(ApiError::deserialize(
                "query parameters",
                format!("invalid type: string \"{other}\", expected a boolean"),
            )),
        }
    }

    /// The whole body as JSON; an empty body is an error as it is there.
    pub(super) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        let body = std::mem::replace(&mut self.body, Body::empty());
        let bytes = read_limited(body, MAX_JSON_BYTES).await?;
        parse_json(&bytes)
    }

    /// The whole body, however large.
    pub(super) async fn bytes(&mut self) -> Result<bytes::Bytes, ApiError> {
        let body = std::mem::replace(&mut self.body, Body::empty());
        read_limited(body, usize::MAX).await
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::format("JSON body", error.to_string()))
}

async fn read_limited(body: Body, limit: usize) -> Result<bytes::Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError { status: http::StatusCode::BAD_REQUEST, message: too_large(limit) })
        }
        Err(error) => Err(ApiError::format("JSON body", error.to_string())),
    }
}

fn too_large(limit: usize) -> String {
    format!("JSON payload has exceeded limit ({limit} bytes).")
}

/// `a=b&c=d`, percent-decoded, as far as this API uses it.
pub(super) fn parse_query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

pub(super) fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let pair: Vec<u8> = bytes.clone().take(2).collect();
                match hex::decode(&pair) {
                    Ok(decoded) if decoded.len() == 1 => {
                        out.extend(decoded);
                        bytes.nth(1);
                    }
                    Ok(_) | Err(_) => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
