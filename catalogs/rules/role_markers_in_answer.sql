/* ---
stage: [sft, preference]
needs: [phrases]
adopted: false
description: A line of an answer begins with a speaker's name (Human:, "### Response:"), as a turn that nobody split off does.
--- */
SELECT row_id, 'a line of the answer begins with ' || array_to_string(answer_role_markers, ', ') AS reason
FROM signals
WHERE len(answer_role_markers) > 0
