"""What finish reasons mean: those of OpenAI and of the services whose own names pass through gateways."""

import pytest

from datagen.finish import read_finish

MEANINGS = {
    "whole": "stop STOP Stop end_turn endTurn stop_sequence STOP_SEQUENCE stop_token eos eos_token eosFound complete "
    "COMPLETE completed done finished FINISH_REASON_STOP FinishReason.STOP finishReasonStop stopStringFound "
    "end_of_turn end-turn none null NULL None",
    "cut": "length LENGTH max_tokens MAX_TOKENS FINISH_REASON_MAX_TOKENS maxTokens max_output_tokens model_length "
    "max_length limit token_limit TokenLimitReached model_context_window_exceeded contextLengthReached "
    "maxPredictedTokensReached incomplete max_new_tokens max_completion_tokens",
    "filtered": "content_filter contentFilter CONTENT_FILTERED SAFETY FINISH_REASON_SAFETY RECITATION BLOCKLIST "
    "PROHIBITED_CONTENT SPII sensitive guardrail_intervened ERROR_TOXIC refusal MODEL_ARMOR data_inspection_failed",
    "failed": "error ERROR abort aborted insufficient_system_resource network_error tool_calls function_call tool_use "
    "TOOL_CALL OTHER LANGUAGE MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL pause_turn user_cancel userStopped "
    "cancelled time_limit not_finished timeout FINISH_REASON_UNSPECIFIED unknown load unload repetition modelUnloaded "
    "['stop'] {'type':'stop'} failed rate_limit_exceeded unstop nonstop stop_error 停止 1",
}


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [(reason, meaning) for meaning, many in MEANINGS.items() for reason in many.split()],
)
def test_what_a_finish_reason_means(reason: str, meaning: str) -> None:
    assert read_finish(reason) == meaning


def test_a_missing_reason_speaks_for_a_whole_reply() -> None:
    assert [read_finish(reason) for reason in (None, "", "  ")] == ["whole"] * 3
