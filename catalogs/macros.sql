-- What a mixture may call. `kept` holds the kept rows of the mixture's stage with `tokens` and `trained_tokens`.
--
-- A take orders a source by a hash of (row_id, seed) and keeps a prefix: more rows in the source do not reshuffle the
-- rest, and a smaller budget is a subset of a larger one. A budget is never exceeded: the prefix ends before the row
-- that would pass it. A token is a rendered token before any cut.

CREATE MACRO sample_key(id, seed) AS md5_number_upper(concat(id, ':', seed));

-- One of `folds` parts of equal chance, 0 .. folds - 1, the same for equal keys: disjoint subsets for an ensemble, one
-- mixture for each member. By prompt, so that no two members learn from answers to one prompt:
-- SELECT * FROM kept WHERE fold(prompt_hash, 3) = 0
CREATE MACRO fold(key, folds, seed := 0) AS CASE
    WHEN folds IS NULL OR folds < 1 OR folds <> floor(folds) THEN error(concat(folds, ' is no number of folds'))
    ELSE (sample_key(key, concat('fold ', seed)) % folds)::INTEGER
END;

-- The name itself, or an error where the mixture's stage has no such source.
CREATE MACRO known_source(name) AS CASE
    WHEN name IN (SELECT known FROM known_sources) THEN name
    WHEN (SELECT count(*) FROM other_sources WHERE known = name) > 0
    THEN error(concat('the source ''', name, ''' holds ', (SELECT any_value(stage) FROM other_sources WHERE known = name),
                      ' rows, not rows of this mixture''s stage'))
    ELSE error(concat('there is no source ''', name, '''; did you mean ''',
                      (SELECT arg_max(known, jaro_winkler_similarity(known, name)) FROM known_sources), '''?'))
END;

-- An amount as a number, or an error: no take goes on with nothing, infinity or half a row.
CREATE MACRO amount(n) AS CASE
    WHEN n IS NULL OR NOT isfinite(n::DOUBLE) THEN error('a take needs an amount')
    WHEN n::DOUBLE <> floor(n::DOUBLE) THEN error(concat('a take of ', n, ' is no whole number'))
    ELSE n::DOUBLE
END;

-- One row per source asked for: what, in which unit, how much.
CREATE MACRO ask_rows(source, n, seed := 0) AS TABLE
    SELECT known_source(source) AS source, 'rows' AS unit, amount(n) AS requested, false AS repeats;
CREATE MACRO ask_tokens(source, budget, seed := 0) AS TABLE
    SELECT known_source(source) AS source, 'tokens' AS unit, amount(budget) AS requested, false AS repeats;
CREATE MACRO ask_trained_tokens(source, budget, seed := 0) AS TABLE
    SELECT known_source(source) AS source, 'trained_tokens' AS unit, amount(budget) AS requested, false AS repeats;
-- Epochs above one are whole repeats and then the first part of one more.
CREATE MACRO ask_epochs(source, epochs, seed := 0) AS TABLE
    SELECT known_source(source) AS source, 'rows' AS unit,
           amount(round(epochs * (SELECT count(*) FROM kept AS k WHERE k.source = known_source(source)))) AS requested,
           true AS repeats;
-- Weights are shares of the one budget that is given; its unit is in its name. A share is rounded down, but not for the
-- error of a binary fraction (0.29 of 100 is 29).
CREATE MACRO ask_weighted(weights, rows := NULL, tokens := NULL, trained_tokens := NULL, seed := 0) AS TABLE
    SELECT known_source(entry.key) AS source,
           CASE WHEN (rows IS NOT NULL)::INTEGER + (tokens IS NOT NULL)::INTEGER
                     + (trained_tokens IS NOT NULL)::INTEGER <> 1
                THEN error('take_weighted needs exactly one of rows, tokens and trained_tokens')
                WHEN rows IS NOT NULL THEN 'rows' WHEN tokens IS NOT NULL THEN 'tokens' ELSE 'trained_tokens' END AS unit,
           CASE WHEN entry.value IS NULL OR entry.value < 0 OR list_sum(map_values(weights)) <= 0
                THEN error('take_weighted needs weights that are not below zero, and one above it')
                ELSE amount(floor(round((coalesce(rows, tokens, trained_tokens) * entry.value
                                         / list_sum(map_values(weights)))::DOUBLE, 6))) END AS requested,
           false AS repeats
    FROM (SELECT unnest(map_entries(weights)) AS entry);

-- The takes themselves: one pattern for all of them.
{% for name, parameters, arguments in takes %}
CREATE MACRO take_{{ name }}({{ parameters }}) AS TABLE
    WITH asked AS (SELECT * FROM ask_{{ name }}({{ arguments }})),
    ranked AS (
        SELECT kept.*, asked.requested AS take_requested,
               asked.repeats OR getvariable('on_shortfall') = 'repeat' AS take_repeats,
               sum(CASE asked.unit WHEN 'rows' THEN 1 WHEN 'tokens' THEN kept.tokens ELSE kept.trained_tokens END)
                   OVER prefix AS take_running,
               sum(CASE asked.unit WHEN 'rows' THEN 1 WHEN 'tokens' THEN kept.tokens ELSE kept.trained_tokens END)
                   OVER (PARTITION BY kept.source) AS take_total
        FROM kept JOIN asked ON kept.source = asked.source
        WINDOW prefix AS (PARTITION BY kept.source ORDER BY sample_key(kept.row_id, seed), kept.row_id
                          ROWS UNBOUNDED PRECEDING)
    )
    SELECT ranked.* EXCLUDE (take_requested, take_repeats, take_running, take_total), repeat.epoch::INTEGER AS epoch
    FROM ranked JOIN (SELECT unnest(range(0, {{ max_epochs }})) AS epoch) AS repeat
      ON repeat.epoch * take_total + take_running <= take_requested
     AND (repeat.epoch = 0 OR take_repeats);
{% endfor %}
