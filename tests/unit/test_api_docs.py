"""The pieces of the OpenAPI document."""

from __future__ import annotations

from server.api_docs import Field, binary_body, completed, either, errors, json_body, multipart_body, ref


def test_a_form_with_a_file_a_choice_and_a_list() -> None:
    body = multipart_body(
        Field("file", "The recording.", kind="file", required=True),
        Field("kind", "Which.", choices=("a", "b"), example="a"),
        Field("tags[]", "Several.", repeated=True, choices=("x",)),
    )
    schema = body["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert schema["required"] == ["file"]
    assert schema["properties"]["file"]["format"] == "binary"
    assert schema["properties"]["kind"] == {
        "type": "string",
        "enum": ["a", "b"],
        "description": "Which.",
        "example": "a",
    }
    assert schema["properties"]["tags[]"]["items"] == {"type": "string", "enum": ["x"]}


def test_one_of_several_bodies() -> None:
    body = either(multipart_body(Field("f", "F.")), json_body({"type": "object"}, {"a": 1}), binary_body("audio/wav"))
    content = body["requestBody"]["content"]
    assert list(content) == ["multipart/form-data", "application/json", "audio/wav"]
    assert content["application/json"]["example"] == {"a": 1}
    assert body["requestBody"]["required"]
    assert not either(json_body({}, required=False))["requestBody"]["required"]


def test_errors_in_a_face_s_shape_say_when_to_come_back() -> None:
    found = errors(400, 503)
    assert found[400]["content"]["application/json"]["schema"] == ref("Error")
    assert "headers" not in found[400]
    assert "Retry-After" in found[503]["headers"]
    assert errors(404, shape="detail")[404]["content"]["application/json"]["schema"] == ref("Detail")
    assert {400, 413, 507} <= set(errors())


def test_the_document_has_the_shapes_and_no_answer_that_never_comes() -> None:
    document = completed({"paths": {"/x": {"get": {"responses": {"200": {}, "422": {}}}}}})
    assert document["paths"]["/x"]["get"]["responses"] == {"200": {}}
    assert {"Error", "Detail"} <= set(document["components"]["schemas"])
