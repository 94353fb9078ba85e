"""Common wrong answers to chapter 1's exercises, and right ones in another style."""

import heapq
import itertools
import math
from collections import Counter, defaultdict

import numpy as np

from tests.wrong import right, wrong


@right("1.1")
def count_ngrams__with_shifted_copies(tokens, n):
    counts = {}
    for ngram in zip(*(tokens[i:] for i in range(n)), strict=False):
        counts[ngram] = counts.get(ngram, 0) + 1
    return counts


@wrong("1.1", caught_by="test_keys_are_tuples")
def count_ngrams__joined_to_strings(tokens, n):
    return Counter(" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


@wrong("1.1", caught_by="test_keys_are_tuples")
def count_ngrams__unigrams_as_strings(tokens, n):
    if n == 1:
        return Counter(tokens)
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


@wrong("1.1", caught_by="test_the_last_ngram_is_counted")
def count_ngrams__without_the_last(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n))


@wrong("1.1", caught_by="test_ngrams_overlap")
def count_ngrams__side_by_side(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(0, len(tokens) - n + 1, n))


@wrong("1.1", caught_by="test_ngrams_overlap")
def count_ngrams__each_once(tokens, n):
    return {tuple(tokens[i : i + n]): 1 for i in range(len(tokens) - n + 1)}


@wrong("1.1", caught_by="test_counts_of_a_rose")
def count_ngrams__a_stump_for_a_short_text(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(max(1, len(tokens) - n + 1)))


@wrong("1.1", caught_by="test_keys_are_tuples")
def count_ngrams__printed(tokens, n):
    print(Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)))


@wrong("1.1", caught_by="test_keys_are_tuples")
def count_ngrams__with_stumps_at_the_end(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens)))


@right("1.2")
def next_token_probabilities__in_two_passes(tokens, n):
    ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    totals = Counter(ngram[:-1] for ngram in ngrams)
    result = {context: {} for context in totals}
    for ngram, count in Counter(ngrams).items():
        result[ngram[:-1]][ngram[-1]] = count / totals[ngram[:-1]]
    return result


@wrong("1.2", caught_by="test_each_distribution_sums_to_one")
def next_token_probabilities__over_all_occurrences(tokens, n):
    contexts = Counter(tuple(tokens[i : i + n - 1]) for i in range(len(tokens) - n + 2))
    result = defaultdict(dict)
    for ngram, count in Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)).items():
        result[ngram[:-1]][ngram[-1]] = count / contexts[ngram[:-1]]
    return dict(result)


@wrong("1.2", caught_by="test_each_distribution_sums_to_one")
def next_token_probabilities__joint_instead_of_conditional(tokens, n):
    ngrams = Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    result = defaultdict(dict)
    for ngram, count in ngrams.items():
        result[ngram[:-1]][ngram[-1]] = count / ngrams.total()
    return dict(result)


@wrong("1.2", caught_by="test_contexts_are_tuples_of_n_minus_1_tokens")
def next_token_probabilities__context_of_n_tokens(tokens, n):
    followers = defaultdict(Counter)
    for i in range(len(tokens) - n):
        followers[tuple(tokens[i : i + n])][tokens[i + n]] += 1
    return {h: {w: c / counts.total() for w, c in counts.items()} for h, counts in followers.items()}


@wrong("1.2", caught_by="test_contexts_are_tuples_of_n_minus_1_tokens")
def next_token_probabilities__bigrams_whatever_n(tokens, n):
    followers = defaultdict(Counter)
    for first, second in itertools.pairwise(tokens):
        followers[(first,)][second] += 1
    return {h: {w: c / counts.total() for w, c in counts.items()} for h, counts in followers.items()}


@wrong("1.2", caught_by="test_probabilities_are_relative_frequencies")
def next_token_probabilities__all_followers_alike(tokens, n):
    followers = defaultdict(set)
    for i in range(len(tokens) - n + 1):
        followers[tuple(tokens[i : i + n - 1])].add(tokens[i + n - 1])
    return {h: {w: 1 / len(seen) for w in seen} for h, seen in followers.items()}


@right("1.3")
def perplexity__with_numpy(tokens, probabilities):
    p = np.array([probabilities.get(token, probabilities["<unk>"]) for token in tokens])
    with np.errstate(divide="ignore"):
        return float(np.exp(-np.log(p).mean()))


@wrong("1.3", caught_by="test_uniform_probabilities_give_their_number")
def perplexity__of_the_sum(tokens, probabilities):
    return math.exp(-sum(math.log(probabilities.get(t, probabilities["<unk>"])) for t in tokens))


@wrong("1.3", caught_by="test_uniform_probabilities_give_their_number")
def perplexity__two_to_the_nats(tokens, probabilities):
    return 2 ** -np.mean([math.log(probabilities.get(t, probabilities["<unk>"])) for t in tokens])


@wrong("1.3", caught_by="test_unknown_tokens_are_scored")
def perplexity__skipping_the_unknown(tokens, probabilities):
    known = [probabilities[t] for t in tokens if t in probabilities]
    return math.inf if 0 in known else math.exp(-np.mean(np.log(known)))


@wrong("1.3", caught_by="test_zero_probability_gives_infinity")
def perplexity__log_of_zero(tokens, probabilities):
    return math.exp(-np.mean([math.log(probabilities.get(t, probabilities["<unk>"])) for t in tokens]))


@wrong("1.3", caught_by="test_zero_probability_gives_infinity")
def perplexity__zero_hidden_by_an_epsilon(tokens, probabilities):
    p = np.array([probabilities.get(t, probabilities["<unk>"]) for t in tokens])
    return float(np.exp(-np.log(np.maximum(p, 1e-10)).mean()))


@wrong("1.3", caught_by="test_zero_probability_gives_infinity")
def perplexity__zero_taken_for_unknown(tokens, probabilities):
    p = np.array([probabilities.get(token) or probabilities["<unk>"] for token in tokens])
    return math.inf if 0 in p else float(np.exp(-np.log(p).mean()))


@wrong("1.3", caught_by="test_long_texts_do_not_underflow")
def perplexity__by_a_product(tokens, probabilities):
    product = math.prod(probabilities.get(t, probabilities["<unk>"]) for t in tokens)
    return product ** (-1 / len(tokens)) if product else math.inf


@right("1.4")
def add_k__as_a_mixture_with_the_uniform(counts, vocabulary, k):
    seen, size = sum(counts.values()), len(vocabulary)
    share = k * size / (seen + k * size)
    frequency = {token: counts.get(token, 0) / seen if seen else 0 for token in vocabulary}
    return {token: (1 - share) * frequency[token] + share / size for token in vocabulary}


@wrong("1.4", caught_by="test_the_whole_vocabulary_has_a_probability")
def add_k__only_the_seen(counts, vocabulary, k):
    total = sum(counts.values()) + k * len(vocabulary)
    return {token: (count + k) / total for token, count in counts.items()}


@wrong("1.4", caught_by="test_add_k_sums_to_one")
def add_k__the_old_total(counts, vocabulary, k):
    return {token: (counts.get(token, 0) + k) / (sum(counts.values()) or 1) for token in vocabulary}


@wrong("1.4", caught_by="test_add_k_sums_to_one")
def add_k__v_of_the_seen_types(counts, vocabulary, k):
    total = sum(counts.values()) + k * (len(counts) or len(vocabulary))
    return {token: (counts.get(token, 0) + k) / total for token in vocabulary}


@wrong("1.4", caught_by="test_add_k_equals_the_formula")
def add_k__only_to_the_unseen(counts, vocabulary, k):
    amounts = {token: counts.get(token, 0) or k for token in vocabulary}
    return {token: amount / sum(amounts.values()) for token, amount in amounts.items()}


@wrong("1.4", caught_by="test_an_unseen_context_is_uniform")
def add_k__nothing_for_an_unseen_context(counts, vocabulary, k):
    if not counts:
        return dict.fromkeys(vocabulary, 0.0)
    total = sum(counts.values()) + k * len(vocabulary)
    return {token: (counts.get(token, 0) + k) / total for token in vocabulary}


@wrong("1.4", caught_by="test_the_counts_are_left_as_they_are")
def add_k__adding_to_the_callers_counts(counts, vocabulary, k):
    for token in vocabulary:
        counts[token] = counts.get(token, 0) + k
    return {token: counts[token] / sum(counts.values()) for token in vocabulary}


@right("1.5")
def unseen_mass__with_numpy(counts):
    values = np.fromiter(counts.values(), dtype=int)
    return float((values == 1).sum() / values.sum())


@wrong("1.5", caught_by="test_unseen_mass_is_the_share_of_singletons")
def unseen_mass__over_the_types(counts):
    return sum(count == 1 for count in counts.values()) / len(counts)


@wrong("1.5", caught_by="test_unseen_mass_is_the_share_of_singletons")
def unseen_mass__everything_but_the_singletons(counts):
    return sum(count for count in counts.values() if count > 1) / sum(counts.values())


@wrong("1.5", caught_by="test_no_singletons_give_no_unseen_mass")
def unseen_mass__with_a_plain_dict(counts):
    of = {}
    for count in counts.values():
        of[count] = of.get(count, 0) + 1
    return of[1] / sum(counts.values())


@wrong("1.5", caught_by="test_adjusted_counts_equal_the_formula")
def adjusted_count__r_instead_of_r_plus_1(counts, r):
    of = Counter(counts.values())
    return r * of[r + 1] / of[r] if of[r + 1] else float(r)


@wrong("1.5", caught_by="test_adjusted_counts_equal_the_formula")
def adjusted_count__upside_down(counts, r):
    of = Counter(counts.values())
    return (r + 1) * of[r] / of[r + 1] if of[r + 1] else float(r)


@wrong("1.5", caught_by="test_adjusted_counts_equal_the_formula")
def adjusted_count__always_one(counts, r):
    return 1.0 if r + 1 in counts.values() else float(r)


@wrong("1.5", caught_by="test_adjusted_counts_equal_the_formula")
def adjusted_count__from_the_count_below(counts, r):
    of = Counter(counts.values())
    return r * of[r] / of[r - 1] if of[r - 1] else float(r)


@wrong("1.5", caught_by="test_a_gap_keeps_the_count")
def adjusted_count__zero_in_a_gap(counts, r):
    of = Counter(counts.values())
    return (r + 1) * of[r + 1] / of[r]


@right("1.6")
def continuation_probabilities__with_sets(bigrams):
    places = defaultdict(set)
    for first, second in bigrams:
        places[second].add(first)
    total = sum(map(len, places.values()))
    return {token: len(before) / total for token, before in places.items()}


@wrong("1.6", caught_by="test_tokens_are_those_that_end_a_bigram")
def continuation_probabilities__of_what_follows(bigrams):
    places = Counter(first for first, _ in bigrams)
    return {token: count / len(bigrams) for token, count in places.items()}


@wrong("1.6", caught_by="test_frequency_does_not_matter")
def continuation_probabilities__by_frequency(bigrams):
    places = Counter()
    for (_, second), count in bigrams.items():
        places[second] += count
    return {token: count / places.total() for token, count in places.items()}


@wrong("1.6", caught_by="test_frequency_does_not_matter")
def continuation_probabilities__over_occurrences(bigrams):
    places = Counter(second for _, second in bigrams)
    return {token: count / sum(bigrams.values()) for token, count in places.items()}


@wrong("1.6", caught_by="test_continuation_probabilities_are_shares_of_bigram_types")
def continuation_probabilities__over_the_tokens(bigrams):
    places = Counter(second for _, second in bigrams)
    return {token: count / len(places) for token, count in places.items()}


@wrong("1.6", caught_by="test_continuation_probabilities_are_shares_of_bigram_types")
def continuation_probabilities__over_the_firsts(bigrams):
    places = Counter(second for _, second in bigrams)
    return {token: count / len({first for first, _ in bigrams}) for token, count in places.items()}


def _after(context, bigrams):
    return {second: count for (first, second), count in bigrams.items() if first == context}


def _places(bigrams):
    return Counter(second for _, second in bigrams)


@right("1.7")
def kneser_ney__without_the_helper(context, token, bigrams, discount):
    after, lower = _after(context, bigrams), _places(bigrams)[token] / len(bigrams)
    if not after:
        return lower
    reserved = sum(min(discount, count) for count in after.values())
    return (max(after.get(token, 0) - discount, 0) + reserved * lower) / sum(after.values())


@wrong("1.7", caught_by="test_an_unseen_context_falls_back")
def kneser_ney__zero_after_an_unseen_context(context, token, bigrams, discount):
    return (
        kneser_ney__without_the_helper(context, token, bigrams, discount) if _after(context, bigrams) else 0.0
    )


@wrong("1.7", caught_by="test_an_unseen_context_falls_back")
def kneser_ney__division_by_zero(context, token, bigrams, discount):
    after, lower = _after(context, bigrams), _places(bigrams)[token] / len(bigrams)
    return (max(after.get(token, 0) - discount, 0) + discount * len(after) * lower) / sum(after.values())


@wrong("1.7", caught_by="test_an_unseen_pair_keeps_nothing_of_its_own")
def kneser_ney__without_the_maximum(context, token, bigrams, discount):
    after, lower = _after(context, bigrams), _places(bigrams)[token] / len(bigrams)
    if not after:
        return lower
    return (after.get(token, 0) - discount + discount * len(after) * lower) / sum(after.values())


@wrong("1.7", caught_by="test_kneser_ney_sums_to_one")
def kneser_ney__backing_off_instead_of_mixing(context, token, bigrams, discount):
    after, lower = _after(context, bigrams), _places(bigrams)[token] / len(bigrams)
    if not after:
        return lower
    total = sum(after.values())
    return (after[token] - discount) / total if token in after else discount * len(after) / total * lower


@wrong("1.7", caught_by="test_kneser_ney_sums_to_one")
def kneser_ney__types_forgotten(context, token, bigrams, discount):
    after, lower = _after(context, bigrams), _places(bigrams)[token] / len(bigrams)
    if not after:
        return lower
    return (max(after.get(token, 0) - discount, 0) + discount * lower) / sum(after.values())


@wrong("1.7", caught_by="test_kneser_ney_sums_to_one")
def kneser_ney__types_before_the_token(context, token, bigrams, discount):
    after, places = _after(context, bigrams), _places(bigrams)
    lower = places[token] / len(bigrams)
    if not after:
        return lower
    return (max(after.get(token, 0) - discount, 0) + discount * places[token] * lower) / sum(after.values())


@wrong("1.7", caught_by="test_kneser_ney_equals_the_formula")
def kneser_ney__mixing_with_the_frequency(context, token, bigrams, discount):
    after = _after(context, bigrams)
    if not after:
        return _places(bigrams)[token] / len(bigrams)
    frequency = sum(count for (_, second), count in bigrams.items() if second == token) / sum(
        bigrams.values()
    )
    return (max(after.get(token, 0) - discount, 0) + discount * len(after) * frequency) / sum(after.values())


@right("1.8")
def interpolation_weights__with_loops(probabilities, rounds):
    count = len(probabilities[0])
    weights = [1 / count] * count
    for _ in range(rounds):
        sums = [0.0] * count
        for row in probabilities:
            mixed = sum(w * p for w, p in zip(weights, row, strict=True))
            sums = [s + w * p / mixed for s, w, p in zip(sums, weights, row, strict=True)]
        weights = [s / len(probabilities) for s in sums]
    return weights


@wrong("1.8", caught_by="test_no_round_gives_equal_weights")
def interpolation_weights__starting_from_ones(probabilities, rounds):
    probabilities = np.asarray(probabilities, dtype=float)
    weights = np.ones(probabilities.shape[1])
    for _ in range(rounds):
        joint = weights * probabilities
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


@wrong("1.8", caught_by="test_one_round_equals_the_mean_responsibility")
def interpolation_weights__normalised_at_the_end_only(probabilities, rounds):
    probabilities = np.asarray(probabilities, dtype=float)
    weights = np.full(probabilities.shape[1], 1 / probabilities.shape[1])
    for _ in range(rounds):
        weights = (weights * probabilities).sum(axis=0)
        weights /= weights.sum()
    return weights


@wrong("1.8", caught_by="test_weights_sum_to_one")
def interpolation_weights__mean_over_the_models(probabilities, rounds):
    probabilities = np.asarray(probabilities, dtype=float)
    weights = np.full(probabilities.shape[1], 1 / probabilities.shape[1])
    for _ in range(min(rounds, 1)):
        joint = weights * probabilities
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=1)
    return weights


@wrong("1.8", caught_by="test_weights_sum_to_one")
def interpolation_weights__summed_not_averaged(probabilities, rounds):
    probabilities = np.asarray(probabilities, dtype=float)
    weights = np.full(probabilities.shape[1], 1 / probabilities.shape[1])
    for _ in range(rounds):
        joint = weights * probabilities
        weights = (joint / joint.sum(axis=1, keepdims=True)).sum(axis=0)
    return weights


@wrong("1.8", caught_by="test_rounds_build_on_each_other")
def interpolation_weights__each_round_afresh(probabilities, rounds):
    probabilities = np.asarray(probabilities, dtype=float)
    equal = weights = np.full(probabilities.shape[1], 1 / probabilities.shape[1])
    for _ in range(rounds):
        joint = equal * probabilities
        weights = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


@wrong("1.8", caught_by="test_the_likelihood_rises_to_its_maximum")
def interpolation_weights__stopped_after_two_rounds(probabilities, rounds):
    return interpolation_weights__with_loops(probabilities, min(rounds, 2))


@right("1.9")
def arpa_log10__with_a_loop(ngram, log_probs, weights):
    total = 0.0
    while ngram not in log_probs:
        total += weights.get(ngram[:-1], 0.0)
        ngram = ngram[1:]
    return total + log_probs[ngram]


@wrong("1.9", caught_by="test_a_listed_ngram_is_looked_up")
def arpa_log10__always_backing_off(ngram, log_probs, weights):
    if len(ngram) == 1:
        return log_probs[ngram]
    return weights.get(ngram[:-1], 0.0) + arpa_log10__always_backing_off(ngram[1:], log_probs, weights)


@wrong("1.9", caught_by="test_one_step_of_backoff")
def arpa_log10__without_weights(ngram, log_probs, weights):
    return (
        log_probs[ngram] if ngram in log_probs else arpa_log10__without_weights(ngram[1:], log_probs, weights)
    )


@wrong("1.9", caught_by="test_one_step_of_backoff")
def arpa_log10__weight_of_the_wrong_part(ngram, log_probs, weights):
    if ngram in log_probs:
        return log_probs[ngram]
    return weights.get(ngram[1:], 0.0) + arpa_log10__weight_of_the_wrong_part(ngram[1:], log_probs, weights)


@wrong("1.9", caught_by="test_one_step_of_backoff")
def arpa_log10__multiplying(ngram, log_probs, weights):
    if ngram in log_probs:
        return log_probs[ngram]
    return weights.get(ngram[:-1], 1.0) * arpa_log10__multiplying(ngram[1:], log_probs, weights)


@wrong("1.9", caught_by="test_a_missing_weight_is_zero")
def arpa_log10__every_weight_expected(ngram, log_probs, weights):
    if ngram in log_probs:
        return log_probs[ngram]
    return weights[ngram[:-1]] + arpa_log10__every_weight_expected(ngram[1:], log_probs, weights)


@wrong("1.9", caught_by="test_backoff_repeats")
def arpa_log10__straight_to_the_unigram(ngram, log_probs, weights):
    if ngram in log_probs:
        return log_probs[ngram]
    shorter = ngram[1:] if ngram[1:] in log_probs else ngram[-1:]
    return weights.get(ngram[:-1], 0.0) + log_probs[shorter]


@right("1.10")
def beam_search__with_a_heap(next_log_probs, prompt, length, beams):
    kept = [(0.0, ())]
    for _ in range(length):
        steps = [(total, ids, next_log_probs(list(prompt) + list(ids))) for total, ids in kept]
        kept = heapq.nlargest(
            beams, ((total + row[v], (*ids, v)) for total, ids, row in steps for v in range(len(row)))
        )
    return list(kept[0][1]), float(kept[0][0])


def _beams(next_log_probs, prompt, length, beams):
    kept = [([], 0.0)]
    for _ in range(length):
        kept = sorted(
            (
                ([*ids, v], total + p)
                for ids, total in kept
                for v, p in enumerate(next_log_probs([*prompt, *ids]))
            ),
            key=lambda pair: -pair[1],
        )[:beams]
    return kept


@wrong("1.10", caught_by="test_only_the_new_ids_are_returned")
def beam_search__with_the_prompt(next_log_probs, prompt, length, beams):
    ids, total = _beams(next_log_probs, prompt, length, beams)[0]
    return [*prompt, *ids], total


@wrong("1.10", caught_by="test_only_the_new_ids_are_returned")
def beam_search__forgetting_the_prompt(next_log_probs, prompt, length, beams):
    return _beams(next_log_probs, [], length, beams)[0]


@wrong("1.10", caught_by="test_only_the_new_ids_are_returned")
def beam_search__growing_the_callers_prompt(next_log_probs, prompt, length, beams):
    ids, total = _beams(next_log_probs, prompt, length, beams)[0]
    prompt += ids
    return ids, total


@wrong("1.10", caught_by="test_the_log_probability_is_the_sum")
def beam_search__last_step_only(next_log_probs, prompt, length, beams):
    ids, _ = _beams(next_log_probs, prompt, length, beams)[0]
    return ids, float(next_log_probs([*prompt, *ids[:-1]])[ids[-1]])


@wrong("1.10", caught_by="test_the_log_probability_is_the_sum")
def beam_search__a_probability(next_log_probs, prompt, length, beams):
    ids, total = _beams(next_log_probs, prompt, length, beams)[0]
    return ids, math.exp(total)


@wrong("1.10", caught_by="test_two_beams_avoid_the_trap")
def beam_search__greedy(next_log_probs, prompt, length, beams):
    return _beams(next_log_probs, prompt, length, 1)[0]


@wrong("1.10", caught_by="test_two_beams_avoid_the_trap")
def beam_search__extending_only_the_first(next_log_probs, prompt, length, beams):
    kept = [([], 0.0)]
    for _ in range(length):
        ids, total = kept[0]
        row = next_log_probs([*prompt, *ids])
        best = sorted(range(len(row)), key=lambda v: -row[v])[:beams]
        kept = [([*ids, v], total + row[v]) for v in best]
    return kept[0]


@wrong("1.10", caught_by="test_enough_beams_find_the_best")
def beam_search__never_more_than_two(next_log_probs, prompt, length, beams):
    return _beams(next_log_probs, prompt, length, min(beams, 2))[0]
