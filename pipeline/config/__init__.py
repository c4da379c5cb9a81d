"""Settings: typed models, loading, validation, and the JSON Schema of a config file.

Every other folder may import it; it imports only `errors`, `records` and `shards`.
"""

from pipeline.config.constraints import others as others
from pipeline.config.models import AppConfig as AppConfig
from pipeline.config.models import InputConfig as InputConfig
from pipeline.config.models import InputSource as InputSource
from pipeline.config.models import OllamaConfig as OllamaConfig
from pipeline.config.models import OutputConfig as OutputConfig
from pipeline.config.models import Overflow as Overflow
from pipeline.config.models import ProviderConfig as ProviderConfig
from pipeline.config.models import RunnerConfig as RunnerConfig
from pipeline.config.models import ValueSource as ValueSource
from pipeline.config.models import VLLMConfig as VLLMConfig
from pipeline.config.models import check_fields as check_fields
from pipeline.config.models import rule_of as rule_of
from pipeline.config.resolved_agent import ResolvedAgentConfig as ResolvedAgentConfig
from pipeline.config.texts import mask_url as mask_url
