"""The same chain without HTTP, queues or threads: what the server's answers are compared with."""

from collections.abc import Sequence

from halve.core import Payload
from halve.errors import AnswerError, InvalidParameterError
from halve.serving.gateway.chain import Answered, Chain
from halve.serving.gateway.isolate import answer_isolated


def answer_offline(chain: Chain, payloads: Sequence[Payload], *, batch_size: int = 32) -> list[Answered]:
    """Return the chain's answer to each payload, in order. Models are loaded one at a time, and closed.

    The cache is left out: it may only return what the chain itself once answered.

    Raises:
        AnswerError: If a model fails on an input; the index is the payload's.
        InvalidParameterError: If the batch size is below 1.
    """
    if batch_size < 1:
        raise InvalidParameterError("batch_size", rule="at least 1", value=batch_size)
    answers: dict[int, Answered] = {}
    for link in chain.links:
        waiting = [position for position in range(len(payloads)) if position not in answers]
        answerer = chain.load(link.model, link.deployment.threads)
        try:
            for start in range(0, len(waiting), batch_size):
                batch = waiting[start : start + batch_size]
                outcome = answer_isolated(answerer, [payloads[position] for position in batch], link=link)
                for index, error in outcome.failed.items():
                    raise AnswerError(error.model, index=batch[index], cause=error.cause)
                answers.update((batch[index], answered) for index, answered in outcome.answered.items())
        finally:
            answerer.close()
    return [answers[position] for position in range(len(payloads))]
