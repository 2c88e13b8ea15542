"""What Airflow's UI shows: the Video tab, the Videos galleries (Airflow 3.1+) and two operator links.

Airflow loads :mod:`.plugin` in every one of its processes, so that it imports nothing of the web; :mod:`.web`
is imported by the api-server when the first page is requested.
"""
