//! Listing objects.

use super::*;

async fn filled() -> S3Server {
    let server = server().await;
    let client = server.client().await;
    for key in ["a/1", "a/2", "a/b/3", "b", "c/4", "d e+f"] {
        put(&client, key, key).await;
    }
    server
}

fn keys(page: &aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output) -> Vec<&str> {
    page.contents().iter().filter_map(|object| object.key()).collect()
}

#[tokio::test]
async fn keys_are_listed_in_order_by_prefix_and_from_a_place_on() {
    let server = filled().await;
    let client = server.client().await;
    let list = || client.list_objects_v2().bucket(BUCKET);
    assert_eq!(keys(&list().send().await.unwrap()), ["a/1", "a/2", "a/b/3", "b", "c/4", "d e+f"]);
    assert_eq!(keys(&list().prefix("a/").send().await.unwrap()), ["a/1", "a/2", "a/b/3"]);
    assert_eq!(keys(&list().start_after("a/2").send().await.unwrap()), ["a/b/3", "b", "c/4", "d e+f"]);
    assert_eq!(keys(&list().prefix("none").send().await.unwrap()), [""; 0]);
    let object = &list().prefix("b").send().await.unwrap().contents()[0].clone();
    assert_eq!(object.size(), Some(1));
    assert_eq!(object.e_tag(), Some(md5_etag(b"b").as_str()));
    assert!(object.last_modified().is_some());
    assert_eq!(server.calls().last().unwrap().prefix.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_delimiter_groups_keys() {
    let server = filled().await;
    let client = server.client().await;
    let page = client.list_objects_v2().bucket(BUCKET).delimiter("/").send().await.unwrap();
    assert_eq!(keys(&page), ["b", "d e+f"]);
    let groups: Vec<_> = page.common_prefixes().iter().filter_map(|group| group.prefix()).collect();
    assert_eq!(groups, ["a/", "c/"]);
    assert_eq!(page.key_count(), Some(4));
    let page = client.list_objects_v2().bucket(BUCKET).delimiter("/").prefix("a/").send().await.unwrap();
    assert_eq!(keys(&page), ["a/1", "a/2"]);
    assert_eq!(page.common_prefixes()[0].prefix(), Some("a/b/"));
}

#[tokio::test]
async fn pages_join_without_a_gap_or_a_repeat() {
    let server = filled().await;
    let client = server.client().await;
    for (delimiter, expected) in [
        (None, vec!["a/1", "a/2", "a/b/3", "b", "c/4", "d e+f"]),
        (Some("/"), vec!["a/", "b", "c/", "d e+f"]),
    ] {
        for size in 1..=6 {
            let list = client.list_objects_v2().bucket(BUCKET).max_keys(size);
            let mut pages = list.set_delimiter(delimiter.map(str::to_owned)).into_paginator().send();
            let mut seen = Vec::new();
            while let Some(page) = pages.next().await {
                let page = page.unwrap();
                let mut names: Vec<String> = keys(&page).into_iter().map(str::to_owned).collect();
                names.extend(
                    page.common_prefixes().iter().filter_map(|group| group.prefix().map(str::to_owned)),
                );
                assert!(i32::try_from(names.len()).unwrap() <= size);
                names.sort();
                seen.extend(names);
            }
            assert_eq!(seen, expected, "{size} a page, delimiter {delimiter:?}");
        }
    }
    let none = client.list_objects_v2().bucket(BUCKET).max_keys(0).send().await.unwrap();
    assert_eq!((none.key_count(), none.is_truncated()), (Some(0), Some(false)));
}

#[tokio::test]
async fn names_are_encoded_when_asked_for() {
    let server = filled().await;
    let client = server.client().await;
    let list = client.list_objects_v2().bucket(BUCKET).prefix("d");
    let page = list.encoding_type(aws_sdk_s3::types::EncodingType::Url).send().await.unwrap();
    assert_eq!(keys(&page), ["d%20e%2Bf"]);
}

#[tokio::test]
async fn the_first_form_of_listing_works_too() {
    let server = filled().await;
    let client = server.client().await;
    let first = client.list_objects().bucket(BUCKET).max_keys(4).send().await.unwrap();
    let rest =
        client.list_objects().bucket(BUCKET).marker(first.next_marker().unwrap()).send().await.unwrap();
    let seen: Vec<_> =
        first.contents().iter().chain(rest.contents()).filter_map(|object| object.key()).collect();
    assert_eq!(seen, ["a/1", "a/2", "a/b/3", "b", "c/4", "d e+f"]);
}
