"""What SNS, EventBridge and S3 put around an event, opened and read by the core's own codec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from timeit import timeit
from typing import Any

import pytest
from eventkit_sqs._content import Entry, delivery_of, entry_of
from eventkit_sqs._envelopes import is_suspect, unwrap
from hypothesis import given, settings
from hypothesis import strategies as st

from eventkit._codec import Codec, Decoding, Envelope
from eventkit.errors import DecodeError
from eventkit.spi import Delivery, Outgoing

TOPIC = "arn:aws:sns:us-west-2:123456789012:orders"

SNS: dict[str, Any] = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": TOPIC,
    "Subject": "My First Message",
    "Message": '{"total": 3}',
    "Timestamp": "2012-05-02T00:54:06.655Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLEw6JRN...",
    "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-f3ecfb72.pem",
    "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=x",
    "MessageAttributes": {
        "store": {"Type": "String", "Value": "example_corp"},
        "price": {"Type": "Number", "Value": "210.75"},
        "tags": {"Type": "String.Array", "Value": '["a", "b"]'},
        "blob": {"Type": "Binary", "Value": "AP8="},
    },
}

BUS: dict[str, Any] = {
    "version": "0",
    "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
    "detail-type": "EC2 Instance State-change Notification",
    "source": "aws.ec2",
    "account": "111122223333",
    "time": "2017-12-22T18:43:48Z",
    "region": "us-west-1",
    "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
    "detail": {"instance-id": "i-1234567890abcdef0", "state": "terminated"},
}

RECORD: dict[str, Any] = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "1970-01-01T00:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "127.0.0.1"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQ+"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "testConfigRule",
        "bucket": {"name": "mybucket", "ownerIdentity": {"principalId": "A3N"}, "arn": "arn:aws:s3:::mybucket"},
        "object": {
            "key": "red+flower.jpg", "size": 1024, "eTag": "d41d8", "versionId": "096fKKX", "sequencer": "0055AED6DC"
        },
    },
}  # fmt: skip
S3: dict[str, Any] = {"Records": [RECORD]}

S3_TEST: dict[str, Any] = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2014-10-13T15:57:02.089Z",
    "Bucket": "bucketname",
    "RequestId": "5582815E1AEA5ADF",
    "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR",
}

STRUCTURED = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "order.made", "data": {"total": 3}}

ENVELOPES = {"sns": SNS, "bus": BUS, "s3": S3, "test": S3_TEST}


def text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def by_sns(inner: object, **changed: Any) -> dict[str, Any]:
    return SNS | {"Message": text(inner)} | changed


def sns_attributes(**values: str) -> dict[str, Any]:
    return {name.replace("_", "-"): {"Type": "String", "Value": value} for name, value in values.items()}


def received(body: object, **attributes: str) -> Delivery:
    """`_` in names stands for `-`."""
    return delivery_of(on_the_wire(body, **attributes), "r", 0.0, fifo=False)


def on_the_wire(body: object, **attributes: str) -> dict[str, Any]:
    return {
        "MessageId": "broker-id",
        "Body": text(body),
        "MessageAttributes": {
            name.replace("_", "-"): {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    }


def read(delivery: Delivery) -> Envelope:
    return Codec(Decoding(), "sqs://orders").read(delivery)


def data(envelope: Envelope) -> Any:
    return Codec(Decoding(), "sqs://orders").decoder(Any)(envelope)


def identity(envelope: Envelope) -> tuple[str, str, str]:
    return envelope.id, envelope.source, envelope.type


def without(document: Mapping[str, Any], member: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != member}


# -- SNS ---------------------------------------------------------------------------------------------


def test_a_notification_is_an_event_of_its_topic() -> None:
    """The id is that of the publication: it stays when SNS delivers again, so that a repeat is told."""
    delivery = received(SNS)
    event = read(delivery)
    assert identity(event) == (SNS["MessageId"], TOPIC, "com.amazonaws.sns.Notification")
    assert (event.time, event.subject) == ("2012-05-02T00:54:06.655Z", "My First Message")
    assert data(event) == {"total": 3}
    assert delivery.body == b'{"total": 3}'


def test_attributes_of_the_notification_are_attributes() -> None:
    """As raw delivery would have them."""
    attributes = received(SNS).attributes
    expected = {"store": "example_corp", "price": "210.75", "tags": '["a", "b"]', "blob": "AP8="}
    assert expected.items() <= attributes.items()


def test_a_type_among_the_attributes_is_the_type() -> None:
    """Plain JSON on SQS has it there too: handlers are chosen by it."""
    event = read(received(by_sns({}, MessageAttributes=sns_attributes(type="order.made"))))
    assert event.type == "order.made"
    event = read(received(by_sns({}, MessageAttributes=sns_attributes(event_type="x"), Subject=None)))
    assert (event.type, event.subject) == ("com.amazonaws.sns.Notification", None)


def test_the_messages_own_attributes_are_not_replaced() -> None:
    """They were written later, by who forwarded it."""
    assert received(SNS, store="mine").attributes["store"] == "mine"
    assert received(S3, ce_subject="mine").attributes["ce-subject"] == "mine"


def test_a_structured_cloud_event_in_a_notification_is_itself() -> None:
    """Its own id is what a repeat is told by, not that of SNS."""
    event = read(received(by_sns(STRUCTURED)))
    assert identity(event) == ("e1", "/shop", "order.made")
    assert data(event) == {"total": 3}


def test_a_binary_cloud_event_in_a_notification_is_itself() -> None:
    """Its attributes travel as those of SNS, its content type too."""
    given = sns_attributes(ce_specversion="1.0", ce_id="e1", ce_source="/shop", ce_type="x", content_type="text/plain")
    delivery = received(by_sns("hello", MessageAttributes=given))
    event = read(delivery)
    assert identity(event) == ("e1", "/shop", "x")
    assert (event.data, event.content_type) == (b"hello", "text/plain")
    assert "content-type" not in delivery.attributes


def test_what_only_mentions_specversion_is_data() -> None:
    """A CloudEvent has all four members."""
    event = read(received(by_sns({"specversion": "1.0", "note": "no event"})))
    assert event.id == SNS["MessageId"]
    assert data(event)["note"] == "no event"


def test_text_in_a_notification_is_text() -> None:
    """Most topics for people carry no JSON."""
    event = read(received(by_sns("Hello wörld!")))
    assert Codec(Decoding(), "s").decoder(str)(event) == "Hello wörld!"


@pytest.mark.parametrize(("inner", "type"), [(S3, "com.amazonaws.s3.ObjectCreated:Put"), (BUS, BUS["detail-type"])])
def test_an_event_of_another_service_in_a_notification_is_itself(inner: dict[str, Any], type: str) -> None:
    """S3 to SNS to SQS is the usual fan-out."""
    direct, by_topic = received(inner), received(by_sns(inner))
    assert read(by_topic).type == type
    assert identity(read(by_topic)) == identity(read(direct))
    assert by_topic.body == direct.body
    assert by_topic.attributes["store"] == "example_corp"


def test_a_notification_in_a_notification_is_data() -> None:
    """One envelope is opened, and what AWS itself may have put inside: nothing recurses."""
    event = read(received(by_sns(SNS)))
    assert data(event) == SNS


def test_more_attributes_than_an_event_may_have_make_it_plain_json() -> None:
    """The codec refuses a CloudEvent of more than 32 attributes, and SNS has no such limit."""
    many = sns_attributes(**{f"name_{index}": "x" for index in range(40)})
    event = read(received(by_sns({"total": 3}, MessageAttributes=many)))
    assert (event.id, data(event)) == ("broker-id", {"total": 3})


# -- EventBridge -------------------------------------------------------------------------------------


def test_an_event_of_event_bridge_is_its_detail() -> None:
    """The envelope's members are CloudEvents attributes, by other names."""
    event = read(received(BUS))
    assert identity(event) == (BUS["id"], "aws.ec2", "EC2 Instance State-change Notification")
    assert (event.time, event.subject) == ("2017-12-22T18:43:48Z", BUS["resources"][0])
    assert event.extensions == {"account": "111122223333", "region": "us-west-1"}
    assert data(event) == BUS["detail"]


def test_the_detail_keeps_its_bytes() -> None:
    """A number of many digits or a space is what the sender wrote."""
    body = json.dumps(BUS | {"detail": 0, "replay-name": "r"}).replace('"detail": 0', '"detail": {"n" : 1.0e3}')
    assert received(body).body == b'{"n" : 1.0e3}'


def test_a_scheduled_event_has_no_subject() -> None:
    """Nor need an event put by a program name resources."""
    event = read(received(BUS | {"detail-type": "Scheduled Event", "resources": [], "detail": {}}))
    assert event.subject is None
    assert data(event) == {}


def test_members_in_another_order_are_still_an_envelope() -> None:
    """Whoever forwards it may have sorted them."""
    assert received(json.dumps(BUS, sort_keys=True)).body == received(BUS).body


# -- S3 ----------------------------------------------------------------------------------------------


def test_a_notification_of_s3_is_an_event_by_the_cloud_events_adapter() -> None:
    """Type, source, subject and time as documented there; the data is all of it, as handlers for S3 expect."""
    event = read(received(S3))
    assert event.id.startswith("C3D13FE58DE4C810.FMyUVURIY8/IgAtTv8xRjskZQ+.")
    assert event.source == "aws:s3.us-west-2.mybucket"
    assert event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert (event.time, event.subject) == ("1970-01-01T00:00:00.000Z", "red+flower.jpg")
    assert data(event) == S3


def test_events_of_one_request_have_ids_of_their_own() -> None:
    """DeleteObjects names a thousand objects: by the request's ids alone all but the first would be skipped."""
    removed = RECORD | {"eventName": "ObjectRemoved:Delete"}
    ids = {read(received({"Records": [removed | {"s3": RECORD["s3"] | {"object": {"key": key}}}]})).id for key in "abc"}
    assert len(ids) == 3


def test_a_repeat_by_s3_has_the_same_id() -> None:
    """Its time may differ."""
    again = {"Records": [RECORD | {"eventTime": "1970-01-01T00:00:01.000Z"}]}
    assert read(received(again)).id == read(received(S3)).id


def test_several_records_stay_together() -> None:
    """One delivery is one event; it is about no single object."""
    event = read(received({"Records": [RECORD, RECORD | {"eventName": "ObjectRemoved:Delete"}]}))
    assert (event.type, event.subject) == ("com.amazonaws.s3.ObjectCreated:Put", None)
    assert len(data(event)["Records"]) == 2
    assert event.id != read(received(S3)).id


def test_a_key_that_is_too_long_for_a_subject_is_left_to_the_data() -> None:
    """1,024 bytes are 3 KiB when escaped; the event must not be refused for it."""
    long = {"Records": [RECORD | {"s3": RECORD["s3"] | {"object": {"key": "%C3%A4" * 400}}}]}
    event = read(received(long))
    assert event.subject is None
    assert data(event) == long


def test_a_record_without_request_ids_has_an_id() -> None:
    """Not every event was a request."""
    assert read(received({"Records": [without(RECORD, "responseElements")]})).id


def test_the_test_event_of_s3_has_a_type_to_skip_it_by() -> None:
    """S3 sends one when notifications are set up; without a type it would be dead-lettered."""
    event = read(received(S3_TEST))
    assert event.type == "com.amazonaws.s3.TestEvent"
    assert event.source == "aws:s3.bucketname"
    assert data(event) == S3_TEST


# -- what is left alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_nothing_is_opened_where_it_is_turned_off(envelope: dict[str, Any]) -> None:
    """For who wants the signature, or all of it."""
    delivery = delivery_of(on_the_wire(envelope), "r", 0.0, fifo=False, unwrap=False)
    assert (json.loads(delivery.body), delivery.attributes) == (envelope, {})


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_what_eventkit_published_comes_back_as_it_was(envelope: dict[str, Any]) -> None:
    """Clause 8: also a body that looks like an envelope; a dead letter of one is the same event again."""
    for original in (Outgoing(body=text(envelope).encode()), _copy(received(envelope))):
        entry = entry_of(original, 0, fifo=False, most=1024 * 1024, token="t")
        assert isinstance(entry, Entry)
        fields = entry.fields
        back = delivery_of(
            {"Body": fields["MessageBody"], "MessageAttributes": fields.get("MessageAttributes", {})},
            "r",
            0.0,
            fifo=False,
        )
        assert (back.body, back.attributes) == (original.body, original.attributes)
        assert back.content_type == original.content_type


def _copy(delivery: Delivery) -> Outgoing:
    return Outgoing(body=delivery.body, attributes=delivery.attributes, content_type=delivery.content_type)


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
@pytest.mark.parametrize(
    "attributes",
    [{"ce_specversion": "1.0"}, {"content_type": "application/cloudevents+json"}, {"content_type": "text/plain"}],
)
def test_a_message_that_says_what_it_is_is_believed(envelope: dict[str, Any], attributes: dict[str, str]) -> None:
    """AWS sends envelopes without attributes."""
    assert json.loads(received(envelope, **attributes).body) == envelope


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_json_stated_as_such_may_be_an_envelope(envelope: dict[str, Any]) -> None:
    """Who forwards it may say so."""
    assert read(received(envelope, content_type="application/json")).source != "sqs://orders"


@pytest.mark.parametrize(
    "order",
    [
        {"Message": "hello", "id": 1},
        {"Type": "Notification", "Message": "hello"},
        {"Type": "Notification", "Message": "m", "MessageId": "1", "TopicArn": "my topic", "Timestamp": "t"},
        {"Type": "SubscriptionConfirmation", "TopicArn": TOPIC, "MessageId": "1", "Message": "m", "Timestamp": "t"},
        {"id": "1", "detail-type": "x", "source": "y", "detail": {}},
        {"Records": [{"eventSource": "aws:sqs"}]},
        {"Records": [], "id": "aws:s3"},
        {"Records": [{"eventSource": "aws:s3"}]},
        {"id": 1, "Event": "s3:TestEvent"},
        {"data": SNS},
        [SNS],
        "TopicArn",
    ],
)
def test_ordinary_json_is_left_alone(order: object) -> None:
    """A member of the same name is no envelope."""
    delivery = received(order)
    assert (delivery.body.decode(), delivery.attributes, delivery.content_type) == (text(order), {}, None)


@pytest.mark.parametrize("kind", ENVELOPES)
@pytest.mark.parametrize("wrong", [None, 7, [], {}, [{}], "", True])
def test_a_member_of_a_wrong_type_leaves_it_as_it_came(kind: str, wrong: object) -> None:
    """Or, where the member is not needed, changes nothing; in no case does it raise."""
    envelope = ENVELOPES[kind]
    for member in envelope:
        delivery = received(envelope | {member: wrong})
        if not delivery.attributes:
            assert json.loads(delivery.body) == envelope | {member: wrong}


@pytest.mark.parametrize(("envelope", "needed"), [(SNS, "MessageId"), (BUS, "id"), (BUS, "region"), (S3_TEST, "Time")])
def test_without_a_member_that_is_always_there_it_is_no_envelope(envelope: dict[str, Any], needed: str) -> None:
    """Strict, so that an order is not taken for one."""
    assert json.loads(received(without(envelope, needed)).body) == without(envelope, needed)


@pytest.mark.parametrize("bad", ["", "a\nb", "x" * 2000, "\x00"])
def test_an_id_no_event_may_have_leaves_it_as_it_came(bad: str) -> None:
    """The codec would refuse the event for it; as plain JSON it is still read."""
    delivery = received(BUS | {"id": bad})
    assert json.loads(delivery.body) == BUS | {"id": bad}


@pytest.mark.parametrize("kind", ENVELOPES)
def test_cut_json_is_left_as_it_came(kind: str) -> None:
    """At every byte: the codec says what is wrong with it."""
    whole = text(ENVELOPES[kind]).encode()
    for end in range(len(whole)):
        assert unwrap(whole[:end], {}, None) == (whole[:end], {}, None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"Type": "Notification", "TopicArn": ' + b"[" * 500_000,
        b'{"version": "0", "detail-type": "x", "detail": ' + b'{"a":' * 200_000,
        text(BUS).encode().replace(b'"detail": {', b'"detail": {"a":' + b"[" * 100_000 + b"]" * 100_000 + b","),
        b'{"Records": [{"x": "aws:s3", "s3": ' + b"[" * 500_000,
        b" " * 1_000_000 + b'{"Type"',
        b'{"Type": "TopicArn"' + b"," * 1_000_000,
        b'{"Type": "TopicArn", "Message": "' + b"\\u0000" * 150_000,
        b'{"id": "TopicArn", "n": ' + b"9" * 1_000_000 + b"}",
        text(SNS).encode().replace(b"example_corp", b"\xff\xfe"),
        text(SNS).encode().replace(b"My First", b"\\ud800"),
        b'{"Type": "Notification", "TopicArn": "' + b"a" * 1_000_000 + b'"}',
    ],
)
def test_hostile_json_neither_raises_nor_takes_long(body: bytes) -> None:
    """Deep, long, not UTF-8: handed over as it came, in milliseconds a megabyte."""
    result: list[object] = []
    seconds = timeit(lambda: result.append(_opened(body)), number=1)
    assert result == [(body, {}, None)]
    assert seconds < 1.0


def _opened(body: bytes) -> object:
    return unwrap(body, {}, None) if is_suspect(body, {}, None) else (body, {}, None)


def test_of_a_member_given_twice_the_last_counts() -> None:
    """As for most readers; whoever can write to the queue could as well have left out the first."""
    twice = text(SNS)[:-1] + ', "Message": "last"}'
    assert received(twice).body == b"last"


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(ENVELOPES)), st.data())
@settings(max_examples=400, deadline=None)
def test_no_envelope_makes_the_codec_raise_anything_but_its_own_error(kind: str, draw: st.DataObject) -> None:
    """A bad one is rejected with a reason: never a crash."""
    envelope = dict(ENVELOPES[kind])
    for member in draw.draw(st.lists(st.sampled_from(sorted(envelope)), max_size=3)):
        envelope[member] = draw.draw(_junk)
    body = bytearray(text(by_sns(envelope) if draw.draw(st.booleans()) else envelope).encode())
    for place, byte in draw.draw(st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, 255)), max_size=3)):
        body[place] = byte
    unwrapped = unwrap(bytes(body), {}, None)
    delivery = Delivery(
        receipt=0,
        body=unwrapped.body,
        message_id="m",
        leased_until=0.0,
        attributes=unwrapped.attributes,
        content_type=unwrapped.content_type,
    )
    try:
        data(read(delivery))
    except DecodeError as error:
        assert str(error)  # noqa: PT017 - both answers are good


def test_looking_for_an_envelope_is_cheap() -> None:
    """It is done for every message; most pass on their first member."""
    order = text({"order": 7, "lines": [{"sku": "abc", "note": "x" * 30}] * 15}).encode()
    suspicious = text({"id": 7, "lines": [{"sku": "abc", "note": "x" * 30}] * 15}).encode()
    first = min(timeit(lambda: is_suspect(order, {}, None), number=2000) for _ in range(5)) / 2000
    second = min(timeit(lambda: is_suspect(suspicious, {}, None), number=2000) for _ in range(5)) / 2000
    print(f"first member {first * 1e6:.2f} us, telltales {second * 1e6:.2f} us")
    assert first < 5e-6
    assert second < 50e-6
