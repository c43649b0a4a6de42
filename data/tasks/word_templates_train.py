"""The templates of word problems that are trained on; data/tasks/word_templates.py explains the
form."""

from __future__ import annotations

from data.tasks.word_templates import parse_templates

TRAIN = parse_templates("""
pens_and_card | shopping | a 2-9, b 2-9, c 2-30
{person} buys {a} pens for {b} dollars each and a card for {c} dollars. How many dollars does
{person} spend?
x = a * b | The pens cost {x} dollars.
y = x + c | Together that is {y} dollars.

money_back | shopping | a 2-8, b 2-6, c 2-20, d 20-100
{person} buys {a} {things} for {b} dollars each and a bag for {c} dollars, and pays with {d}
dollars. How many dollars does {person} get back?
x = a * b | The {things} cost {x} dollars.
y = x + c | With the bag that is {y} dollars.
z = d - y | The shop gives back {z} dollars.

two_prices | shopping | a 2-9, b 2-9, c 2-7, d 2-7
A shop sells {things} for {a} dollars each and {more} for {b} dollars each. {person} buys {c}
{things} and {d} {more}. How many dollars does that cost?
x = c * a | The {things} cost {x} dollars.
y = d * b | The {more} cost {y} dollars.
z = x + y | Together that is {z} dollars.

coupon | shopping | a 30-99, b 3-25, c 2-20
A coat costs {a} dollars. The shop lowers the price by {b} dollars, and {person} also has a coupon
worth {c} dollars. How many dollars does {person} pay for the coat?
x = a - b | The lower price is {x} dollars.
y = x - c | With the coupon it is {y} dollars.

two_speeds | travel | a 5-30, b 2-4, c 5-30, d 2-3
A ship sails {a} kilometers per hour for {b} hours and then {c} kilometers per hour for {d} hours.
How many kilometers does it sail?
x = a * b | The first part is {x} kilometers.
y = c * d | The second part is {y} kilometers.
z = x + y | The whole way is {z} kilometers.

way_left | travel | a 8-25, b 2-4, c 30-99
{person} cycles {a} kilometers per hour for {b} hours. The tour is {c} kilometers long. How many
kilometers are left?
x = a * b | After these hours {person} has cycled {x} kilometers.
y = c - x | What is left is {y} kilometers.

there_and_back | travel | a 2-12, b 2-4
The lake is {a} kilometers from the house of {person}, who walks there and back {b} times. How
many kilometers is that?
x = a * 2 | There and back is {x} kilometers.
y = x * b | All the walks are {y} kilometers.

fuel | travel | a 3-12, b 2-6, c 30-90
A truck has {c} liters of fuel. A trip to the harbor needs {a} liters, and it makes {b} such
trips. How many liters of fuel are left?
x = a * b | The trips need {x} liters.
y = c - x | Then there are {y} liters left.

keep_some | sharing | a 12-60, b 2-12, c 2-8
{person} has {a} {things}, keeps {b} of them and shares the others equally among {c} friends. How
many {things} does each friend get?
x = a - b | The friends share {x} {things}.
y = x / c | Each friend gets {y} {things}.

packs_shared | sharing | a 2-8, b 3-12, c 2-8
There are {a} packs with {b} {things} each. If {c} children share them equally, how many {things}
does each child get?
x = a * b | In all there are {x} {things}.
y = x / c | Each child gets {y} {things}.

two_bowls | sharing | a 5-30, b 5-30, c 2-6, d 1-4
There are {a} {things} in one bowl and {b} in another. The {c} children of {person} share all of
them equally, and then each child gives {d} back. How many {things} does each child keep?
x = a + b | Both bowls have {x} {things}.
y = x / c | Each child gets {y} {things}.
z = y - d | Each child keeps {z} {things}.

bags_and_rest | sharing | a 2-9, b 3-10, c 1-9
{person} fills {a} bags with {b} {things} each, and {c} {things} are left over. How many {things}
were there at first?
x = a * b | In the bags are {x} {things}.
y = x + c | At first there were {y} {things}.

together_later | ages | a 3-30, b 3-30, c 2-12
{person} is {a} years old and {other} is {b} years old. What is the sum of their ages in {c}
years?
x = a + c | The age of {person} will be {x} years.
y = b + c | The age of {other} will be {y} years.
z = x + y | The sum of their ages will be {z} years.

times_as_old | ages | a 3-15, b 2-5, c 2-15
{person} is {a} years old, and {other} is {b} times as old. How old will {other} be in {c} years?
x = a * b | Now the age of {other} is {x} years.
y = x + c | In {c} years it will be {y} years.

older_and_older | ages | a 2-15, b 2-15, c 2-15
{person} is {a} years older than {other}. {other} is {b} years older than {third}, who is {c}
years old. How old is {person}?
x = c + b | The age of {other} is {x} years.
y = x + a | The age of {person} is {y} years.

mother_before | ages | a 2-5, b 6-18, c 2-10
{person} is {b} years old, and {person}'s mother is {a} times as old. How old was the mother {c}
years ago?
x = b * a | Now the mother is {x} years old.
y = x - c | Before that time she was {y} years old.

machines | work | a 2-9, b 2-5, c 2-5
A machine makes {a} {things} per hour. How many {things} do {b} such machines make in {c} hours?
x = a * b | In one hour they make {x} {things}.
y = x * c | In {c} hours they make {y} {things}.

two_days | work | a 3-9, b 2-6, c 2-6, d 5-50
{person} earns {a} dollars per hour, works {b} hours on Monday and {c} hours on Tuesday, and then
spends {d} dollars. How many dollars does {person} have left?
x = b + c | On both days that is {x} hours.
y = a * x | For them {person} earns {y} dollars.
z = y - d | After spending there are {z} dollars left.

pages_left | work | a 30-99, b 4-15, c 2-6
A book has {a} pages. {person} reads {b} pages per day for {c} days. How many pages are left?
x = b * c | In these days {person} reads {x} pages.
y = a - x | What is left is {y} pages.

two_painters | work | a 2-9, b 2-9, c 12-90
{person} paints {a} chairs per day and {other} paints {b} chairs per day. How many days do they
need together for {c} chairs?
x = a + b | Together they paint {x} chairs per day.
y = c / x | They need {y} days.

juice_and_water | mixtures | a 2-8, b 2-6, c 2-8, d 2-6
{person} pours {a} bottles of juice and {c} bottles of water into a tub. A bottle of juice holds
{b} liters, and a bottle of water holds {d} liters. How many liters are in the tub?
x = a * b | The juice is {x} liters.
y = c * d | The water is {y} liters.
z = x + y | In the tub are {z} liters.

green_paint | mixtures | a 2-9, b 2-9, c 2-6
For one bucket of green paint {person} mixes {a} cups of blue paint and {b} cups of yellow paint.
How many cups of paint are needed for {c} buckets?
x = a + b | One bucket needs {x} cups.
y = x * c | All the buckets need {y} cups.

fill_bottles | mixtures | a 20-60, b 5-30, c 2-8, d 2-6
A tank holds {a} liters of water. {person} adds {b} liters of syrup and fills {c} bottles of {d}
liters each from the tank. How many liters stay in the tank?
x = a + b | With the syrup there are {x} liters.
y = c * d | The bottles take {y} liters.
z = x - y | In the tank stay {z} liters.

trail_mix | mixtures | a 10-60, b 5-40, c 2-8
{person} mixes {a} grams of nuts with {b} grams of raisins and fills {c} bags equally. How many
grams are in each bag?
x = a + b | The mix has {x} grams.
y = x / c | In each bag are {y} grams.

win_and_lose | collections | a 10-50, b 3-30, c 3-30
{person} has {a} {things}, gets {b} more from {other} and then loses {c}. How many {things} does
{person} have now?
x = a + b | With the new ones there are {x} {things}.
y = x - c | After losing some there are {y} {things}.

times_as_many | collections | a 3-20, b 2-5
{person} has {a} {things}, and {other} has {b} times as many. How many {things} do both have
together?
x = a * b | The number that {other} has is {x}.
y = a + x | Together they have {y} {things}.

more_and_fewer | collections | a 5-30, b 3-20, c 2-15
{person} has {a} {things}. {other} has {b} more than {person}, and {third} has {c} fewer than
{other}. How many {things} do {person} and {third} have together?
x = a + b | The number that {other} has is {x}.
y = x - c | The number that {third} has is {y}.
z = a + y | Together {person} and {third} have {z} {things}.

albums | collections | a 2-8, b 4-12, c 3-30, d 2-20
{person} has {a} albums with {b} photos each, gives {c} photos to {other} and takes {d} new ones.
How many photos does {person} have then?
x = a * b | In the albums are {x} photos.
y = x - c | After the gift there are {y} photos.
z = y + d | With the new ones there are {z} photos.

weekly_savings | savings | a 5-40, b 2-9, c 2-8
{person} has {a} dollars and saves {b} dollars per week. How many dollars does {person} have after
{c} weeks?
x = b * c | In these weeks {person} saves {x} dollars.
y = a + x | Then there are {y} dollars.

bike | savings | a 30-99, b 5-50, c 3-9
A bike costs {a} dollars. {person} has {b} dollars and saves {c} dollars per week. After how many
weeks is there enough money for the bike?
x = a - b | What is missing is {x} dollars.
y = x / c | That takes {y} weeks.

aunts_and_jars | savings | a 4-15, b 2-5, c 3-20, d 2-6
{person} gets {a} dollars from each of {b} aunts, spends {c} dollars and puts the rest equally
into {d} jars. How many dollars are in each jar?
x = a * b | The aunts give {x} dollars.
y = x - c | After spending there are {y} dollars.
z = y / d | In each jar are {z} dollars.

lemonade | savings | a 5-20, b 2-5, c 2-12, d 2-12
{person} sells {a} cups of lemonade for {b} dollars each. The lemons cost {c} dollars and the cups
{d} dollars. How many dollars of profit does {person} make?
x = a * b | The cups bring in {x} dollars.
y = c + d | The costs are {y} dollars.
z = x - y | The profit is {z} dollars.

buses | school | a 2-6, b 8-24, c 6-32
A school takes {a} classes with {b} children each to the zoo. A bus holds {c} children. How many
buses are needed?
x = a * b | In all there are {x} children.
y = x / c | They need {y} buses.

chairs_in_rows | school | a 3-9, b 4-12, c 2-20
In a hall are {a} rows of {b} chairs, and {c} of the chairs are broken. How many chairs can be
used?
x = a * b | In the hall are {x} chairs.
y = x - c | People can use {y} chairs.

right_and_wrong | school | a 3-6, b 5-15, c 1-3, d 2-6
In a quiz {person} gets {a} points for each of {b} right answers and loses {c} points for each of
{d} wrong answers. How many points does {person} have at the end?
x = a * b | The right answers give {x} points.
y = c * d | The wrong answers cost {y} points.
z = x - y | At the end there are {z} points.

teams_with_balls | school | a 6-30, b 6-30, c 3-8, d 2-5
There are {a} girls and {b} boys. They make teams of {c} children, and each team gets {d} balls.
How many balls are needed?
x = a + b | In all there are {x} children.
y = x / c | They make {y} teams.
z = y * d | The teams need {z} balls.

fence | garden | a 4-30, b 3-18
A garden is {a} meters long and {b} meters wide. How many meters of fence does {person} need to go
all the way around it?
x = a + b | Length and width are {x} meters.
y = x * 2 | All four sides are {y} meters.

harvest | garden | a 4-12, b 2-6, c 2-15, d 2-6
{person} picks {a} pears from each of {b} trees, finds {c} more on the ground and puts all of them
equally into {d} baskets. How many pears are in each basket?
x = a * b | The trees give {x} pears.
y = x + c | With those on the ground there are {y} pears.
z = y / d | In each basket are {z} pears.

flower_bed | garden | a 2-6, b 2-5, c 2-5
A flower bed is {a} meters long and {b} meters wide, and {c} flowers grow on each square meter.
How many flowers grow in the bed?
x = a * b | The bed has {x} square meters.
y = x * c | On it grow {y} flowers.

watering | garden | a 2-9, b 2-5, c 2-9, d 2-6
{person} gives {b} liters of water to each of {a} roses and {d} liters to each of {c} bushes. How
many liters of water is that?
x = a * b | The roses get {x} liters.
y = c * d | The bushes get {y} liters.
z = x + y | Together that is {z} liters.
""")
