"""What both services do: count the words of a text, by way of the official client in its container mode."""

import io

from ivcap_service import BinaryResult, JobContext, get_secret, with_schema
from pydantic import BaseModel, Field


@with_schema("urn:sdk-test:schema:words.request.1")
class Request(BaseModel):
    """What to do with a text."""

    text: str = Field(description="URN of the text's artifact")
    mode: str = Field("counts", description="counts, fails, binary, text or secret")


@with_schema("urn:sdk-test:schema:words.result.1")
class Result(BaseModel):
    """How many words there are, and the artifact that holds them in capitals."""

    words: int
    capitals: str | None = None
    secret: str | None = None


def work(request: Request, context: JobContext) -> Result | BinaryResult | str:
    if request.mode == "fails":
        raise ValueError(f"cannot count {request.text}")
    if request.mode == "binary":
        return BinaryResult(content_type="image/png", content=b"\x89PNG\x00\xff")
    if request.mode == "text":
        return "three words here"
    if request.mode == "secret":
        return Result(words=0, secret=get_secret("SDK_TEST_SECRET"))
    print(f"counting {request.text}", flush=True)
    with context.report.step("count", artifact=request.text) as step:
        with context.ivcap.get_artifact(request.text).open() as file:
            content = file.read()
        text = content.decode() if isinstance(content, bytes) else content
        step.info({"characters": len(text)})
    data = text.upper().encode()
    made = context.ivcap.upload_artifact(
        name="capitals.txt", io_stream=io.BytesIO(data), content_type="text/plain", content_size=len(data)
    )
    context.ivcap.add_aspect(made.urn, {"$schema": "urn:sdk-test:schema:language.1", "language": "en"})
    return Result(words=len(text.split()), capitals=made.urn)
