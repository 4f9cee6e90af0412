"""A long-running service, as ivcap-ai-tool has them."""

from ivcap_ai_tool import ToolOptions, ivcap_ai_tool, logging_init, start_tool_server
from ivcap_service import JobContext, Service, ServiceContact
from words import Request, Result, work

logging_init()


@ivcap_ai_tool("/", opts=ToolOptions(tags=["Words"]))
def count_words(request: Request, context: JobContext) -> Result:
    """Counts the words of a text.

    The text is an artifact.
    """
    return work(request, context)


if __name__ == "__main__":
    contact = ServiceContact(name="Nobody", email="nobody@example.org")
    start_tool_server(Service(name="sdk-lambda-words", contact=contact))
