"""The public names; each is imported from its module when it is first used."""

from datagen.api import cancel_batches as cancel_batches
from datagen.api import derive as derive
from datagen.api import plan_synthesis as plan_synthesis
from datagen.api import status as status
from datagen.api import synthesize as synthesize
from datagen.batch.client import BatchesUnderWay as BatchesUnderWay
from datagen.batch.files import BatchLimits as BatchLimits
from datagen.errors import ConfigError as ConfigError
from datagen.errors import DataError as DataError
from datagen.errors import ServiceError as ServiceError
from datagen.errors import UserError as UserError
from datagen.filtering import filter as filter
from datagen.publish import publish as publish
from datagen.records import Instruction as Instruction
from datagen.records import Response as Response
from datagen.records import SeedTask as SeedTask
from datagen.records import Verdict as Verdict
from datagen.records import read_records as read_records
from datagen.records import write_records as write_records
from datagen.service.chat import Sampling as Sampling
from datagen.service.endpoint import Service as Service
from datagen.settings import Settings as Settings
from datagen.synthesize import Funnel as Funnel
