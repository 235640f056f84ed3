"""The studio: a page on which a picture is inverted once and edited with words; `renoise studio` starts it.

What is worked out (line, sessions, work, choices, recipes, words, plot) knows nothing of web pages; markup and the
files in static make them; page, handlers, routes, guard and server need the packages of the extra `studio`.
"""
