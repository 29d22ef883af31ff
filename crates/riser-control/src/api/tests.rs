//! The routes and their description.

use http::Method;

use super::*;

#[test]
fn a_path_is_its_route_and_nothing_near_it() {
    let found = |method: Method, path: &str| find(&ROUTES, &method, path).map(|(route, values)| (route.op, values));
    let key = found(Method::DELETE, "/admin/v1/tenants/acme/keys/ab12").expect("a route");
    assert_eq!(key, (Op::RevokeKey, vec!["acme".to_owned(), "ab12".to_owned()]));
    for path in [
        "/",
        "/admin",
        "/admin/v1/tenants/",
        "/admin/v1/tenants//keys",
        "/admin/v1/tenants/acme/keys/",
        "/admin/v1/tenants/acme/keys/ab12/rotate/",
        "/admin/v2/tenants",
        "/ADMIN/v1/tenants",
        "//admin/v1/tenants",
    ] {
        let refused = found(Method::GET, path).expect_err(path);
        assert_eq!(refused.problem().status, StatusCode::NOT_FOUND, "{path}");
    }
    let refused = found(Method::PUT, "/admin/v1/tenants/acme").expect_err("another method");
    let response = refused.into_response();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, PATCH, DELETE");
}

#[test]
fn every_route_and_every_schema_is_described_and_none_is_described_in_vain() {
    assert_eq!(riser_ops::openapi::faults(&openapi(), &ROUTES), [""; 0]);
}

#[test]
fn a_revision_is_expected_as_it_was_given() {
    let with = |values: &[&'static str]| {
        let mut all = HeaderMap::new();
        for value in values {
            all.append(IF_MATCH, HeaderValue::from_static(value));
        }
        expected(&all).map_err(|refused| refused.problem().status)
    };
    assert_eq!(with(&[]), Ok(None));
    assert_eq!(with(&["*"]), Ok(None));
    assert_eq!(with(&["\"7\""]), Ok(Some(7)));
    for bad in [&["7"][..], &["W/\"7\""], &["\"\""], &["\"7\", \"8\""], &["\"7\"", "\"8\""], &["*", "*"], &["\"-1\""]] {
        assert_eq!(with(bad), Err(StatusCode::BAD_REQUEST), "{bad:?}");
    }
}
