"""Token prices in USD per million, as listed in litellm 1.109.1 (prices_llm/litellm_prices_flat.csv) unless noted.

Where a model is not listed the nearest is named: same maker, same size, same time.
"""

from dataclasses import dataclass

CHARACTERS_PER_TOKEN = 4
"""Answers are recorded by their number of characters."""


@dataclass(frozen=True)
class Price:
    """USD per million tokens and the row that says so."""

    input_usd: float
    output_usd: float
    row: str
    note: str = ""


PRICES = {
    "Meta-Llama-3.1-8B-Instruct": Price(0.03, 0.05, "deepinfra/meta-llama/Meta-Llama-3.1-8B-Instruct"),
    "Mistral-Nemo-Instruct-2407": Price(0.04, 0.12, "nebius/mistralai/Mistral-Nemo-Instruct-2407"),
    "gemma-2-9b-it": Price(0.2, 0.2, "vercel_ai_gateway/google/gemma-2-9b"),
    "Qwen2.5-7B-Instruct": Price(0.04, 0.1, "deepinfra/Qwen/Qwen2.5-7B-Instruct"),
    "Qwen2.5-32B-Instruct": Price(0.9, 0.9, "fireworks_ai/accounts/fireworks/models/qwen2p5-32b"),
    "Qwen2.5-72B-Instruct": Price(0.36, 0.4, "deepinfra/Qwen/Qwen2.5-72B-Instruct"),
    "Qwen2-72B-Instruct": Price(0.9, 0.9, "fireworks_ai/accounts/fireworks/models/qwen2-72b-instruct"),
    "Meta-Llama-3.1-70B-Instruct": Price(0.4, 0.4, "deepinfra/meta-llama/Meta-Llama-3.1-70B-Instruct"),
    "Llama-3.1-405B-Inst@sambanova": Price(
        3.5, 3.5, "together_ai/meta-llama/Llama-3.1-405B-Instruct", "the same model at another provider"
    ),
    "deepseek-chat": Price(0.14, 0.28, "deepseek/deepseek-coder", "V2 of 2024; today's deepseek-chat is another model"),
    "deepseek-v2.5-0908": Price(0.14, 0.28, "deepseek/deepseek-coder", "V2 of 2024, the same maker's price"),
    "Mistral-Large-2": Price(2.0, 6.0, "mistral.mistral-large-2407-v1:0"),
    "gpt-4o-mini-2024-07-18": Price(0.15, 0.6, "gpt-4o-mini-2024-07-18"),
    "gpt-4o-2024-08-06": Price(2.5, 10.0, "gpt-4o-2024-08-06"),
    "claude-3-haiku-20240307": Price(0.25, 1.25, "vertex_ai/claude-3-haiku@20240307"),
    "claude-3-5-haiku-20241022": Price(0.8, 4.0, "anthropic.claude-3-5-haiku-20241022-v1:0"),
    "claude-3-5-sonnet-20241022": Price(3.0, 15.0, "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    "gemini-1.5-flash": Price(0.075, 0.3, "", "not in litellm's list; genai-prices, google gemini-1.5-flash"),
    "o1-mini-2024-09-12": Price(1.1, 4.4, "azure/o1-mini-2024-09-12", "hidden reasoning is not recorded: understated"),
    "o1-preview-2024-09-12": Price(16.5, 66.0, "azure/us/o1-preview", "hidden reasoning is not recorded: understated"),
}


def usd(model: str, *, input_characters: float, output_characters: float) -> float:
    """Return what one call costs."""
    price = PRICES[model]
    millions = 1e6 * CHARACTERS_PER_TOKEN
    return (input_characters * price.input_usd + output_characters * price.output_usd) / millions
