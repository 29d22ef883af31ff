//! Tables of routes: from one table an HTTP API's requests are matched, and its description (OpenAPI 3.1) is made, so that
//! neither can say what the other does not.

pub mod schema;

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::request::Refused;
use schema::named;

/// A parameter of the query.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
}

/// What a parameter of the query may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A text.
    Text,
    /// A text that matches this regular expression.
    Matching(&'static str),
    /// A whole number from 1 to this one.
    UpTo(u64),
}

impl Kind {
    fn schema(self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Matching(pattern) => json!({ "type": "string", "pattern": pattern }),
            Self::UpTo(most) => json!({ "type": "integer", "minimum": 1, "maximum": most }),
        }
    }
}

/// A route. `Op` says what it does, for whoever serves it.
#[derive(Debug, Clone, Copy)]
pub struct Route<Op> {
    /// What it does.
    pub op: Op,
    /// Its name in the description, which generated clients call it by.
    pub id: &'static str,
    /// The method.
    pub method: &'static str,
    /// The path, with `{names}` for what is a parameter.
    pub path: &'static str,
    /// For people.
    pub about: &'static str,
    /// Parameters of the query.
    pub query: &'static [Param],
    /// The name of the body's schema; none when there is none.
    pub body: Option<&'static str>,
    /// The status and the name of the schema of a good answer.
    pub answer: (u16, &'static str),
    /// Another good answer, when there are two.
    pub or: Option<(u16, &'static str)>,
    /// The statuses of the problems that it may be answered with; when none are named, it may be any.
    pub refusals: &'static [u16],
    /// Whether a good answer has the tenant's revision as its `ETag`, which `If-Match` is compared with.
    pub tagged: bool,
    /// Whether it is served to who has no credential.
    pub open: bool,
}

/// A route without anything but what every route has. What it is given by the methods of [`Route`].
pub const fn route<Op: Copy>(
    op: Op,
    id: &'static str,
    method: &'static str,
    path: &'static str,
    about: &'static str,
) -> Route<Op> {
    Route {
        op,
        id,
        method,
        path,
        about,
        query: &[],
        body: None,
        answer: (200, ""),
        or: None,
        refusals: &[],
        tagged: false,
        open: false,
    }
}

impl<Op: Copy> Route<Op> {
    /// With parameters of the query.
    #[must_use]
    pub const fn query(self, query: &'static [Param]) -> Self {
        Self { query, ..self }
    }

    /// With a body of this schema.
    #[must_use]
    pub const fn body(self, schema: &'static str) -> Self {
        Self { body: Some(schema), ..self }
    }

    /// With this good answer.
    #[must_use]
    pub const fn gives(self, status: u16, schema: &'static str) -> Self {
        Self { answer: (status, schema), ..self }
    }

    /// With another good answer.
    #[must_use]
    pub const fn or(self, status: u16, schema: &'static str) -> Self {
        Self { or: Some((status, schema)), ..self }
    }

    /// With these problems and no others.
    #[must_use]
    pub const fn refuses(self, statuses: &'static [u16]) -> Self {
        Self { refusals: statuses, ..self }
    }

    /// With a revision.
    #[must_use]
    pub const fn tagged(self) -> Self {
        Self { tagged: true, ..self }
    }

    /// Without a credential.
    #[must_use]
    pub const fn open(self) -> Self {
        Self { open: true, ..self }
    }

    /// The names of the parameters of the query.
    pub fn query_names(&self) -> Vec<&'static str> {
        self.query.iter().map(|param| param.name).collect()
    }

    /// The names of the parameters of the path.
    pub fn path_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// What stands for the parameters of the path, when this is the route of a path.
    fn matches(&self, path: &str) -> Option<Vec<String>> {
        let (mut wanted, mut given) = (self.path.split('/'), path.split('/'));
        let mut values = vec![];
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some(values),
                (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {
                    values.push(given.to_owned());
                }
                (Some(wanted), Some(given)) if wanted == given => {}
                _ => return None,
            }
        }
    }
}

/// The route of a request, and what stands for the parameters of its path.
///
/// # Errors
///
/// 404 when there is none of this path, 405 when there is one with another method.
pub fn find<'a, Op: Copy>(
    routes: &'a [Route<Op>],
    method: &Method,
    path: &str,
) -> Result<(&'a Route<Op>, Vec<String>), Refused> {
    for route in routes.iter().filter(|route| route.method == method.as_str()) {
        if let Some(values) = route.matches(path) {
            return Ok((route, values));
        }
    }
    Err(Refused::method(&methods(routes, path)?))
}

/// The methods that are served at a path.
///
/// # Errors
///
/// 404 when there are none.
pub fn methods<Op: Copy>(routes: &[Route<Op>], path: &str) -> Result<Vec<Method>, Refused> {
    let at = routes.iter().filter(|route| route.matches(path).is_some());
    let methods: Vec<Method> = at.filter_map(|route| route.method.parse().ok()).collect();
    if methods.is_empty() {
        return Err(Refused::new("not_found", Problem::not_found("there is nothing at this path")));
    }
    Ok(methods)
}

/// What a description says about an API as a whole.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name.
    pub title: &'static str,
    /// For people.
    pub text: &'static str,
}

/// OpenAPI 3.1 of an API of these routes and schemas. The schema of problems is added to them.
pub fn describe<Op: Copy>(about: About, routes: &[Route<Op>], mut schemas: Map<String, Value>) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    schemas.insert("Problem".to_owned(), schema::problem());
    json!({
        "openapi": "3.1.0",
        "info": { "title": about.title, "version": env!("CARGO_PKG_VERSION"), "description": about.text },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "It was refused: see `code` and `detail`.",
                    "headers": { "Retry-After": {
                        "description": "When to try again, in seconds, if that is known.",
                        "schema": { "type": "integer", "minimum": 0 },
                    } },
                    "content": { "application/problem+json": { "schema": named("Problem") } },
                },
            },
        },
    })
}

/// What is wrong with a description of these routes: a route that is not in it, a schema that is missing, or one that nothing
/// refers to. For tests.
pub fn faults<Op: Copy>(description: &Value, routes: &[Route<Op>]) -> Vec<String> {
    let mut faults = vec![];
    let schemas = description["components"]["schemas"].as_object().cloned().unwrap_or_default();
    let mut ids = BTreeSet::new();
    for route in routes {
        let operation = &description["paths"][route.path][route.method.to_ascii_lowercase()];
        if operation["operationId"] != route.id || !ids.insert(route.id) {
            faults.push(format!("{} is not there, or twice", route.id));
        }
        for name in route.body.iter().chain([&route.answer.1]).chain(route.or.iter().map(|(_, name)| name)) {
            if !schemas.contains_key(*name) {
                faults.push(format!("there is no schema {name} of {}", route.id));
            }
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for name in route.path_names().chain(route.query_names()) {
            if !parameters.iter().any(|parameter| parameter["name"] == name) {
                faults.push(format!("{} has no parameter {name}", route.id));
            }
        }
    }
    let text = description.to_string();
    let idle = schemas.keys().filter(|name| !text.contains(&format!("#/components/schemas/{name}\"")));
    faults.extend(idle.map(|name| format!("nothing refers to the schema {name}")));
    faults
}

fn operation<Op: Copy>(route: &Route<Op>) -> Value {
    let mut responses = Map::new();
    for (status, schema) in [route.answer].into_iter().chain(route.or) {
        let mut answer = json!({
            "description": "Done.",
            "content": { "application/json": { "schema": named(schema) } },
        });
        if route.tagged {
            let about = "The tenant's revision, for `If-Match`.";
            answer["headers"] = json!({ "ETag": { "description": about, "schema": { "type": "string" } } });
        }
        responses.insert(status.to_string(), answer);
    }
    let refused = || json!({ "$ref": "#/components/responses/Problem" });
    responses.extend(route.refusals.iter().map(|status| (status.to_string(), refused())));
    if route.refusals.is_empty() {
        responses.insert("default".to_owned(), refused());
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.about,
        "parameters": parameters(route),
        "responses": responses,
    });
    if route.open {
        operation["security"] = json!([]);
    }
    if let Some(schema) = route.body {
        let content = json!({ "application/json": { "schema": named(schema) } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn parameters<Op: Copy>(route: &Route<Op>) -> Vec<Value> {
    let path = route.path_names().map(|name| {
        let schema = schema::of_name(name);
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let query = route.query.iter().map(|param| {
        let schema = param.kind.schema();
        json!({ "name": param.name, "in": "query", "required": param.required, "description": param.about, "schema": schema })
    });
    let changes = route.tagged && route.method != "GET" && !route.id.starts_with("create");
    let expected = changes.then(|| {
        let about = "The ETag that the tenant must still have; else 412.";
        json!({ "name": "If-Match", "in": "header", "description": about, "schema": { "type": "string" } })
    });
    path.chain(query).chain(expected).collect()
}
