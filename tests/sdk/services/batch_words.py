"""A batch service, as ivcap-service has them."""

from ivcap_service import JobContext, Service, ServiceContact, start_batch_service
from words import Request, Result, work


def count_words(request: Request, context: JobContext) -> Result:
    """Counts the words of a text.

    The text is an artifact.
    """
    return work(request, context)


if __name__ == "__main__":
    contact = ServiceContact(name="Nobody", email="nobody@example.org")
    start_batch_service(Service(name="sdk-batch-words", contact=contact), count_words)
