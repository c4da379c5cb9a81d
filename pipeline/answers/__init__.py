"""Model text to a validated object: JSON parsing, schema validation, and quotes checked against the document.

It must not read configuration or send requests; `documents`, `llm`, `agents` and everything above may import it.
"""

from pipeline.answers.json_parsing import AnswerError as AnswerError
from pipeline.answers.json_parsing import repair_library as repair_library
from pipeline.answers.json_parsing import strip_fence as strip_fence
from pipeline.answers.thoughts import after_thoughts as after_thoughts
from pipeline.answers.thoughts import is_one_object as is_one_object
from pipeline.answers.validation import Answer as Answer
from pipeline.answers.validation import complaint as complaint
from pipeline.answers.validation import evidence_of as evidence_of
from pipeline.answers.validation import judge as judge
from pipeline.answers.validation import looks_like_loop as looks_like_loop
from pipeline.answers.validation import parse as parse
from pipeline.answers.validation import reask_prompt as reask_prompt
from pipeline.answers.whole import answer_in_reasoning as answer_in_reasoning
from pipeline.answers.whole import breaks_schema as breaks_schema
from pipeline.answers.whole import is_object as is_object
from pipeline.answers.whole import padded_object as padded_object
