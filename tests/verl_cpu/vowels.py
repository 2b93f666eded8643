"""A reward function for tests, called as verl calls it: the share of vowels, which gives the groups of a random model
some variance."""


def share(data_source, solution_str, ground_truth, extra_info):
    return sum(letter in "aeiou" for letter in solution_str) / max(1, len(solution_str))
