//! The OpenAPI 3.1 description of the API, generated from the mapping.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use tandem_model::{ColumnDef, ColumnType};

use crate::entity::Entity;

/// Builds the whole document.
pub(crate) fn document<'a>(entities: impl Iterator<Item = &'a Arc<Entity>>) -> Json {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for entity in entities {
        let table = entity.table();
        let columns: Map<String, Json> = entity
            .visible()
            .iter()
            .map(|&i| (table.columns[i].name.clone(), schema(&table.columns[i])))
            .collect();
        schemas.insert(entity.name.clone(), json!({ "type": "object", "properties": columns }));
        let mut path = format!("/v1/{}", entity.name);
        for &i in &table.primary_key {
            path.extend(["/{", &table.columns[i].name, "}"]);
        }
        paths.insert(path, row(entity));
        paths.insert(format!("/v1/{}", entity.name), rows(entity));
    }
    paths.insert("/v1/batch".into(), batch());
    schemas.insert("Problem".into(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tandem data API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Answers name who served them (Tandem-Served-By, Tandem-Fallback) and under which \
                generation of the phase (Tandem-Generation). A write's Tandem-Token, sent with later reads, \
                makes them see that write.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn schema(column: &ColumnDef) -> Json {
    let integer = json!({ "type": ["integer", "string"] });
    let mut schema = match &column.ty {
        ColumnType::Int { bits: 64, .. } => integer,
        ColumnType::Int { .. } | ColumnType::Year | ColumnType::Bit { .. } => json!({ "type": "integer" }),
        ColumnType::Float | ColumnType::Double => json!({ "type": "number" }),
        ColumnType::Decimal { .. } => json!({ "type": "string", "format": "decimal" }),
        ColumnType::Date => json!({ "type": "string", "format": "date" }),
        ColumnType::Time { .. } => json!({ "type": "string", "format": "duration-clock" }),
        ColumnType::DateTime { .. } => json!({ "type": "string", "format": "local-date-time" }),
        ColumnType::Timestamp { .. } => json!({ "type": "string", "format": "date-time" }),
        ColumnType::Text | ColumnType::Set(_) | ColumnType::Json => json!({ "type": "string" }),
        ColumnType::Enum(members) => json!({ "type": "string", "enum": members }),
        ColumnType::Bytes { .. } | ColumnType::Geometry | ColumnType::Vector => {
            json!({ "type": "string", "contentEncoding": "base64" })
        }
    };
    if column.nullable {
        schema = json!({ "anyOf": [schema, { "type": "null" }] });
    }
    schema["description"] = format!("MySQL: {}", column.ty).into();
    schema
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn content(kind: &str, schema: &Json) -> Json {
    json!({ kind: { "schema": schema } })
}

fn operation(entity: &Entity, summary: &str, parameters: &[Json], body: bool, status: &str) -> Json {
    let mut operation = json!({
        "summary": summary,
        "parameters": parameters,
        "security": [{ "token": [] }],
        "responses": {
            status: { "description": "Done", "content": content("application/json", &reference(&entity.name)) },
            "default": {
                "description": "What went wrong",
                "content": content("application/problem+json", &reference("Problem")),
            },
        },
    });
    if body {
        operation["requestBody"] =
            json!({ "content": content("application/json", &reference(&entity.name)) });
    }
    operation
}

fn parameter(place: &str, name: &str, required: bool, schema: &Json) -> Json {
    json!({ "name": name, "in": place, "required": required, "schema": schema })
}

fn header(name: &str) -> Json {
    parameter("header", name, false, &json!({ "type": "string" }))
}

fn row(entity: &Entity) -> Json {
    let table = entity.table();
    let key = table.primary_key.iter().map(|&i| &table.columns[i]);
    let key: Vec<Json> = key.map(|column| parameter("path", &column.name, true, &schema(column))).collect();
    let writing = [key.as_slice(), &[header("If-Match"), header("Idempotency-Key")]].concat();
    let putting = [writing.as_slice(), &[header("If-None-Match")]].concat();
    let reading = [key.as_slice(), &[header("Tandem-Token"), header("Tandem-Deadline-Ms")]].concat();
    json!({
        "get": operation(entity, "Read a row", &reading, false, "200"),
        "put": operation(entity, "Replace a row, or insert it", &putting, true, "200"),
        "patch": operation(entity, "Change columns of a row", &writing, true, "200"),
        "delete": operation(entity, "Delete a row", &writing, false, "204"),
    })
}

fn rows(entity: &Entity) -> Json {
    let table = entity.table();
    let mut query: Vec<Json> = Vec::new();
    let mut add = |name: &str, schema: &Json| {
        if !query.iter().any(|known| known["name"] == name) {
            query.push(parameter("query", name, false, schema));
        }
    };
    let targets: Vec<&str> = entity.plan.targets().iter().map(|t| t.table().name.as_str()).collect();
    add("target", &json!({ "type": "string", "enum": targets }));
    for target in entity.plan.targets() {
        let partition = target.table().partition_key.len();
        for (place, &i) in target.key_columns().iter().enumerate() {
            let column = &table.columns[i];
            add(&column.name, &schema(column));
            if place >= partition {
                for bound in ["gt", "gte", "lt", "lte"] {
                    add(&format!("{}.{bound}", column.name), &schema(column));
                }
            }
        }
    }
    add("limit", &json!({ "type": "integer", "minimum": 1, "maximum": 1000 }));
    add("page", &json!({ "type": "string" }));
    query.push(header("Tandem-Token"));
    let mut list =
        operation(entity, "List a partition of a target table, page by page", &query, false, "200");
    let items = json!({ "type": "array", "items": reference(&entity.name) });
    let page =
        json!({ "type": "object", "properties": { "items": items, "next": { "type": ["string", "null"] } } });
    list["responses"]["200"]["content"] = content("application/json", &page);
    let insert = operation(entity, "Insert a row", &[header("Idempotency-Key")], true, "201");
    json!({ "get": list, "post": insert })
}

fn batch() -> Json {
    let operation = json!({
        "type": "object",
        "required": ["op", "entity"],
        "properties": {
            "op": { "enum": ["insert", "put", "patch", "delete"] },
            "entity": { "type": "string" },
            "key": { "type": "array", "items": { "type": "string" } },
            "values": { "type": "object" },
            "if_match": { "type": "string" },
            "if_none_match": { "type": "string" },
        },
    });
    let operations = json!({ "type": "array", "items": operation, "minItems": 1, "maxItems": 100 });
    let body =
        json!({ "type": "object", "required": ["operations"], "properties": { "operations": operations } });
    json!({ "post": {
        "summary": "Change several rows in one MySQL transaction",
        "parameters": [header("Idempotency-Key")],
        "security": [{ "token": [] }],
        "requestBody": { "content": content("application/json", &body) },
        "responses": {
            "200": { "description": "All of them are done" },
            "default": {
                "description": "None of them is done",
                "content": content("application/problem+json", &reference("Problem")),
            },
        },
    } })
}

fn problem() -> Json {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "field": { "type": "string", "description": "The field that the problem is about" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_every_path_and_column() {
        let entity = Arc::new(crate::entity::tests::orders());
        let document = document([&entity].into_iter());
        let paths = document["paths"].as_object().unwrap();
        let names: Vec<&String> = paths.keys().collect();
        assert_eq!(names, ["/v1/orders/{id}/{region}", "/v1/orders", "/v1/batch"]);
        let properties = document["components"]["schemas"]["orders"]["properties"].as_object().unwrap();
        assert_eq!(properties.keys().collect::<Vec<_>>(), ["id", "region", "total"]);
        let list = document["paths"]["/v1/orders"]["get"]["parameters"].as_array().unwrap();
        assert!(list.iter().any(|parameter| parameter["name"] == "id.gte"));
    }
}
