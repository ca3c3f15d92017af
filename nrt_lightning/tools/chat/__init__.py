"""A conversation with a trained policy."""

from nrt_lightning.tools.chat.answering import Answerer, ChatSettings, Reply
from nrt_lightning.tools.chat.display import Display
from nrt_lightning.tools.chat.reading import Speaker, read_speaker, speaker_of

__all__ = ["Answerer", "ChatSettings", "Display", "Reply", "Speaker", "read_speaker", "speaker_of"]
